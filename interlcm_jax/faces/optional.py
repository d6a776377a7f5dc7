"""Face networks that a model folder may hold in addition to the five."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import SingleDeviceSharding
from jax.typing import DTypeLike

from interlcm_jax.model_folder import load_network, weights_file
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.weights import abstract

Network = TypeVar("Network", bound=nnx.Module)


def load_optional(
    folder: Path, name: str, kind: Callable[..., Network], config: NetworkConfig, dtype: DTypeLike
) -> Network | None:
    """A network of a model folder, on this process's first device; None where the folder doesn't hold it.

    Args:
        folder: the model folder.
        name: of its file there.
        kind: the network's class.
        config: its sizes.
        dtype: of the weights and the computation.

    Raises:
        WeightsError: the weights don't fit the sizes, or aren't whole or finite; all are named.
    """
    if not weights_file(folder, name).is_file():
        return None
    dtype = jnp.dtype(dtype)
    network = abstract(lambda rngs: kind(config, rngs=rngs, dtype=dtype, param_dtype=dtype))
    here = SingleDeviceSharding(jax.local_devices()[0])
    load_network(folder, name, network, here, sizes=type(config).__name__)
    return network
