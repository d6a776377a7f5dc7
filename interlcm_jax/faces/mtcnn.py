"""MTCNN's three networks (Zhang et al. 2016), with the weights that the `mtcnn` wheel ships."""

import dataclasses
import hashlib
import importlib.util
import io
import itertools
from pathlib import Path
from typing import ClassVar, Self, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import Conv, Init, Linear
from interlcm_jax.models.weights import abstract, flat_weights

PACKAGE, VERSION = "mtcnn", "1.0.0"
# The files are pickles: only these very bytes are ever unpickled.
SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


@dataclasses.dataclass(frozen=True)
class ProposalConfig(NetworkConfig):
    """Sizes of P-Net.

    Attributes:
        channels: widths of its 3x3 convolutions; the first is followed by a halving.
    """

    CELL: ClassVar[int] = 12  # pixels across that one score is about
    STRIDE: ClassVar[int] = 2  # pixels from one score to the next

    channels: tuple[int, ...] = (10, 16, 32)


@dataclasses.dataclass(frozen=True)
class RefinementConfig(NetworkConfig):
    """Sizes of R-Net (the defaults) and O-Net: convolutions, one hidden layer, and the outputs.

    Attributes:
        size: height and width of the crops it looks at.
        channels: widths of the convolutions.
        kernels: sizes of their windows.
        pools: sizes of the pooling windows (stride 2) behind each convolution, 1 for none. The first pooling pads on
            the right and below, the others take whole windows only.
        features: width of the hidden layer.
        landmarks: points it finds besides score and box.
    """

    size: int = 24
    channels: tuple[int, ...] = (28, 48, 64)
    kernels: tuple[int, ...] = (3, 3, 2)
    pools: tuple[int, ...] = (3, 3, 1)
    features: int = 128
    landmarks: int = 0

    @classmethod
    def output(cls) -> Self:
        """O-Net's sizes."""
        return cls(48, (32, 64, 64, 128), (3, 3, 3, 2), (3, 3, 2, 1), 256, 5)

    @property
    def flat_size(self) -> int:
        """Numbers that the convolutions leave of a crop."""
        side = self.size
        for i, (kernel, pool) in enumerate(zip(self.kernels, self.pools, strict=True)):
            side -= kernel - 1
            if pool > 1:
                side = -(-side // 2) if i == 0 else (side - pool) // 2 + 1
        return side * side * self.channels[-1]


class PReLU(nnx.Module):
    """Rectifier with a slope for the negative values of each channel, which is learned."""

    def __init__(self, num_channels: int, **init: Unpack[Init]):
        self.dtype = init["dtype"]
        self.slope = nnx.Param(jnp.full(num_channels, 0.25, init["param_dtype"]))

    def __call__(self, x: Float[Array, "... C"]) -> Float[Array, "... C"]:
        """Scales negative values by their channel's slope."""
        slope = self.slope[...].astype(self.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


class ConvPReLU(nnx.Module):
    """Convolution without padding, rectifier, pooling."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, pool: int, pool_padding: str, **init: Unpack[Init]
    ):
        self.pool, self.pool_padding = pool, pool_padding
        self.conv = Conv(in_channels, out_channels, kernel, padding=0, **init)
        self.prelu = PReLU(out_channels, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Features, at half the resolution where there is a pooling."""
        x = self.prelu(self.conv(x))
        if self.pool > 1:
            x = nnx.max_pool(x, (self.pool, self.pool), (2, 2), self.pool_padding)
        return x


class ProposalNetwork(nnx.Module):
    """P-Net: for each 12x12 window, two pixels apart, how likely it holds a face, and where in it.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation.
        param_dtype: dtype the weights are kept in.
    """

    def __init__(
        self,
        config: ProposalConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        widths = (3, *config.channels)
        self.layers = nnx.List(
            ConvPReLU(before, after, 3, 2 if i == 0 else 1, "VALID", **init)
            for i, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.box = Conv(widths[-1], 4, 1, **init)
        self.score = Conv(widths[-1], 2, 1, **init)

    def __call__(self, x: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B h w"], Float[Array, "B h w 4"]]:
        """Images of even height and width, scaled to [-1, 1], to (H - 10) / 2 by (W - 10) / 2 windows.

        Returns:
            Scores of the windows, 0 to 1; how far left, top, right and bottom of the face are from the window's, in
            window widths.
        """
        for layer in self.layers:
            x = layer(x)
        return nnx.softmax(self.score(x))[..., 1], self.box(x)


class RefinementNetwork(nnx.Module):
    """R-Net and O-Net: how likely a crop holds a face, where in it, and (O-Net) where its landmarks are.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation.
        param_dtype: dtype the weights are kept in.
    """

    def __init__(
        self,
        config: RefinementConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config = config
        widths = itertools.pairwise((3, *config.channels))
        self.layers = nnx.List(
            ConvPReLU(*width, kernel, pool, "SAME" if i == 0 else "VALID", **init)
            for i, (width, kernel, pool) in enumerate(zip(widths, config.kernels, config.pools, strict=True))
        )
        self.hidden = Linear(config.flat_size, config.features, **init)
        self.prelu = PReLU(config.features, **init)
        self.box = Linear(config.features, 4, **init)
        if config.landmarks:
            self.landmarks = Linear(config.features, 2 * config.landmarks, **init)
        self.score = Linear(config.features, 2, **init)

    def __call__(
        self, x: Float[Array, "B S S 3"]
    ) -> tuple[Float[Array, " B"], Float[Array, "B 4"], Float[Array, "B N 2"]]:
        """Crops, scaled to [-1, 1].

        Returns:
            Scores of the crops, 0 to 1; how far left, top, right and bottom of the face are from the crop's, in crop
            widths; x and y of the landmarks from the crop's left and top, in crop widths.
        """
        for layer in self.layers:
            x = layer(x)
        x = x.swapaxes(1, 2).reshape(len(x), -1)  # column by column: the weights were trained so
        x = self.prelu(self.hidden(x))
        scores = nnx.softmax(self.score(x))[:, 1]
        count = self.config.landmarks
        # All x come first, then all y.
        points = self.landmarks(x).reshape(-1, 2, count).swapaxes(1, 2) if count else jnp.zeros((len(x), 0, 2), x.dtype)
        return scores, self.box(x), points


def load_networks(
    device: jax.Device | None = None,
) -> tuple[ProposalNetwork, RefinementNetwork, RefinementNetwork]:
    """P-Net, R-Net and O-Net with the weights of the `mtcnn` wheel, in float32.

    Args:
        device: where the weights go; None is the default device.

    Raises:
        InterLCMError: the `mtcnn` package isn't installed, or holds other weights than version 1.0.0's.
    """
    networks = (
        abstract(lambda rngs: ProposalNetwork(ProposalConfig(), rngs=rngs)),
        abstract(lambda rngs: RefinementNetwork(RefinementConfig(), rngs=rngs)),
        abstract(lambda rngs: RefinementNetwork(RefinementConfig.output(), rngs=rngs)),
    )
    for name, network in zip(SHA256, networks, strict=True):
        weights = flat_weights(network)
        for path, array in zip(_keras_order(network), read_weights(name), strict=True):
            value = array.reshape(weights[path].get_value().shape)  # the slopes have axes of length 1 besides
            weights[path].set_value(jax.device_put(value, device))
    return networks


def _keras_order(network: ProposalNetwork | RefinementNetwork) -> list[str]:
    """Paths of a network's weights in the order of the wheel's files: that of its layers in the forward pass."""
    paths = []
    for i in range(len(network.layers)):
        paths += [f"layers.{i}.conv.kernel", f"layers.{i}.conv.bias", f"layers.{i}.prelu.slope"]
    outputs = ["box", "score"]
    if isinstance(network, RefinementNetwork):
        paths += ["hidden.kernel", "hidden.bias", "prelu.slope"]
        outputs = ["box", "landmarks", "score"] if network.config.landmarks else outputs
    return paths + [f"{layer}.{weight}" for layer in outputs for weight in ("kernel", "bias")]


def read_weights(name: str) -> list[np.ndarray]:
    """Arrays of one file of the `mtcnn` wheel, in Keras' order and layouts.

    The package itself is never imported, since it needs TensorFlow.

    Args:
        name: "pnet", "rnet" or "onet".

    Raises:
        InterLCMError: as for `load_networks`.
    """
    import joblib  # only here, as it starts slowly

    remedy = f"pip install {PACKAGE}=={VERSION}"
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InterLCMError(f"face detection takes its weights from the package {PACKAGE}, which isn't there: {remedy}")
    path = Path(spec.submodule_search_locations[0]) / "assets" / "weights" / f"{name}.lz4"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InterLCMError(f"{path}: can't be read ({error.strerror}): {remedy}") from error
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise InterLCMError(f"{path}: not the weights of {PACKAGE} {VERSION}, so it isn't opened: {remedy}")
    return joblib.load(io.BytesIO(content))
