"""What a stage of training is: its options and its behavior, in one frozen dataclass."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks, seed_key
from interlcm_jax.training.losses import LossConfig

ENCODERS = ("visual_encoder", "spatial_encoder")  # what InterLCM trains; the other networks are frozen there
# Streams of a seed: what is drawn for one purpose never moves what is drawn for another. Initial weights have 11 to 13.
NOISE, POSTERIOR, MASK, DIFFUSION, GUIDANCE, DROPOUT = 1, 2, 3, 4, 5, 6

Metrics = dict[str, Float[Array, ""]]
Images = Mapping[str, Array]  # "lq" and "hq" in [-1, 1], and the stage's own draws, all (B, ...)
Key = Callable[[int], Any]  # from a stream's number to its key at this step


def stream(seed: int, number: int, step: Array) -> Any:
    """The key of a stream at a step: a function of (seed, stream, step)."""
    return jax.random.fold_in(jax.random.fold_in(seed_key(seed), number), step)


class Generated(NamedTuple):
    """What a stage makes pictures of, to be judged.

    Attributes:
        pictures: (B, H, W, 3), near [-1, 1].
        wanted: what they should equal.
        beside: a loss beside those of the pictures.
    """

    pictures: Float[Array, "B H W 3"]
    wanted: Float[Array, "B H W 3"]
    beside: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage; each is a file of `training.stages`, whose fields are the stage's options.

    A stage has either `losses`, which judge what it generates, or a `loss` of its own.

    Attributes:
        trained: the networks, of the model or of `helpers`, whose weights are trained. The others are frozen.
        copied: helpers that start as one of the model folder's networks, by name.
        losses: of the pictures that the stage generates; None: it generates none.
    """

    trained: ClassVar[tuple[str, ...]]
    copied: ClassVar[Mapping[str, str]] = {}
    losses: ClassVar[LossConfig | None] = None

    def draw(self, key: Key, model: ModelConfig, shape: tuple[int, ...]) -> dict[str, Array]:
        """The step's random numbers by name, a leading axis of images, for images of this shape (B, H, W, 3)."""
        raise NotImplementedError

    def generate(self, networks: Networks, model: ModelConfig, images: Images) -> Generated:
        """Pictures, for `losses` to judge."""
        raise NotImplementedError

    def loss(
        self, networks: Networks, average: Networks, model: ModelConfig, images: Images
    ) -> tuple[Float[Array, ""], Metrics]:
        """The loss, and numbers to log; `average` are the networks with averaged weights."""
        raise NotImplementedError

    def show(
        self, networks: Networks, model: ModelConfig, lq: Float[Array, "B H W 3"], hq: Float[Array, "B H W 3"]
    ) -> Float[Array, "B H W 3"]:
        """The pictures by which people and PSNR judge the stage."""
        raise NotImplementedError

    def helpers(self, model: ModelConfig, dtype: DTypeLike) -> dict[str, nnx.Module]:
        """Networks besides the model's five, by name, as shapes. No model folder holds them."""
        return {}

    def measured(
        self, networks: Networks, model: ModelConfig, faces: Iterable[UInt8[np.ndarray, "H W 3"]]
    ) -> ModelConfig:
        """The model's config with what the stage measures on the training faces before its first step."""
        return model

    def require(self, **demands: tuple[bool, str]) -> None:
        """Checks fields: by name whether each is right, and what it must be.

        Raises:
            InterLCMError: names every field that is wrong.
        """
        if wrong := [
            f"stage.{n} is {getattr(self, n)}, but must be {must}" for n, (right, must) in demands.items() if not right
        ]:
            raise InterLCMError("; ".join(wrong))
