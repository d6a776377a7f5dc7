"""ParseNet: what each pixel of an aligned face shows, and the mask of the face made of it.

The face parsing of PSFRGAN (Chen et al., "Progressive Semantic-Aware Style Transformation for Blind Face Restoration",
CVPR 2021, arXiv 2009.08709), as facexlib publishes it (`parsing_parsenet.pth`).
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Literal, Self, Unpack

import cv2
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from interlcm_jax.faces.optional import load_optional
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import BatchNorm, Conv, Init, nearest_resize
from interlcm_jax.runtime.compiler_options import jit

NAME = "parsenet"  # of its file in a model folder
# The classes, CelebAMask-HQ's, in the network's order.
CLASSES = (
    *("background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow", "left ear"),
    *("right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring", "necklace", "neck", "cloth"),
)
# What facexlib pastes of a face; hair and earrings are among it.
PASTED = tuple(name not in ("background", "hat", "necklace", "neck", "cloth") for name in CLASSES)
# The mask's blur and its empty border, at 512 pixels; in proportion at other sizes.
_SIZE, _SIGMA, _RADIUS, _BORDER = 512, 11, 50, 10

Scale = Literal["down", "up"] | None


@dataclasses.dataclass(frozen=True)
class ParseNetConfig(NetworkConfig):
    """Sizes of ParseNet; the defaults are those of the published one.

    Attributes:
        image_size: height and width of the faces, pixels.
        feature_size: height and width of the features in the body.
        base_channels: width at full resolution; it doubles as the resolution halves.
        max_channels: the width stops growing here.
        body_blocks: residual blocks at the lowest resolution.
        num_classes: what a pixel may show.
    """

    image_size: int = 512
    feature_size: int = 32
    base_channels: int = 64
    max_channels: int = 256
    body_blocks: int = 10
    num_classes: int = len(CLASSES)

    @classmethod
    def miniature(cls) -> Self:
        """Faces of 32 pixels, two halvings and 8 to 16 channels, for tests."""
        return cls(image_size=32, feature_size=8, base_channels=8, max_channels=16, body_blocks=2)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at each resolution, the highest first."""
        halvings = (self.image_size // self.feature_size).bit_length() - 1
        return tuple(min(self.base_channels * 2**i, self.max_channels) for i in range(halvings + 1))


class ConvLayer(nnx.Module):
    """3x3 convolution with reflected borders, after doubling or while halving the resolution where `scale` says so.

    With `norm` batch normalization by running statistics stands in for the convolution's bias.
    """

    def __init__(
        self, in_channels: int, out_channels: int, scale: Scale = None, norm: bool = False, **init: Unpack[Init]
    ):
        stride = 2 if scale == "down" else 1
        self.conv = Conv(in_channels, out_channels, stride=stride, padding=0, use_bias=not norm, **init)
        self.norm = BatchNorm(out_channels, **init) if norm else None
        self.doubles = scale == "up"

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """No rectifier follows."""
        if self.doubles:
            x = nearest_resize(x, (2 * x.shape[1], 2 * x.shape[2]), (1, 2))
        x = self.conv(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"))
        return x if self.norm is None else self.norm(x, train=False)


class ResidualBlock(nnx.Module):
    """Two normalized convolutions beside a shortcut, which is a convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, scale: Scale = None, **init: Unpack[Init]):
        changes = scale is not None or in_channels != out_channels
        self.shortcut_func = ConvLayer(in_channels, out_channels, scale, **init) if changes else None
        # The resolution rises in the first and falls in the second.
        self.conv1 = ConvLayer(in_channels, out_channels, scale if scale == "up" else None, norm=True, **init)
        self.conv2 = ConvLayer(out_channels, out_channels, scale if scale == "down" else None, norm=True, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """The rectifier between the two leaks 0.2."""
        residual = self.conv2(nnx.leaky_relu(self.conv1(x), 0.2))
        return residual + (x if self.shortcut_func is None else self.shortcut_func(x))


class ParseNet(nnx.Module):
    """Tells what each pixel of a face shows.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation; normalization is in float32 all the same.
        param_dtype: dtype the weights are kept in; running statistics are in float32 all the same.
    """

    def __init__(
        self,
        config: ParseNetConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config = config
        widths = config.widths
        downs = [ResidualBlock(a, b, "down", **init) for a, b in itertools.pairwise(widths)]
        self.encoder = nnx.List([ConvLayer(3, widths[0], **init), *downs])
        self.body = nnx.List([ResidualBlock(widths[-1], widths[-1], **init) for _ in range(config.body_blocks)])
        self.decoder = nnx.List([ResidualBlock(a, b, "up", **init) for a, b in itertools.pairwise(widths[::-1])])
        self.out_img_conv = ConvLayer(widths[0], 3, **init)
        self.out_mask_conv = ConvLayer(widths[0], config.num_classes, **init)

    def __call__(self, image: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B H W classes"], Float[Array, "B H W 3"]]:
        """Logits of the classes, and the picture that the network was also trained to restore, of RGB in [-1, 1]."""
        x = image
        for layer in self.encoder:
            x = layer(x)
        features = x
        for block in self.body:
            x = block(x)
        x = features + x
        for block in self.decoder:
            x = block(x)
        return self.out_mask_conv(x), self.out_img_conv(x)


class FaceParser:
    """Masks of faces, for pasting them. Any number of threads may call it.

    The faces run one by one, through one compiled program whatever their number: at 512 pixels one fills a device.

    Args:
        network: the network, with its weights.
    """

    def __init__(self, network: ParseNet):
        self.size = network.config.image_size
        self.graph, self.weights = nnx.split(network)

    def __call__(self, faces: UInt8[np.ndarray, "B H W 3"]) -> Float[np.ndarray, "B H W"]:
        """How much of each pixel to paste, 0 to 1, of aligned RGB faces of any size; their edges are blurred."""
        height, width = faces.shape[1:3]
        # Started one after the other before the first is waited for.
        classes = [_classify(self.graph, self.weights, _resized(face, self.size, self.size)) for face in faces]
        masks = [_resized(face_mask(np.asarray(c)), height, width) for c in classes]
        return np.stack(masks) if masks else np.zeros((0, height, width), np.float32)


def face_mask(classes: UInt8[np.ndarray, "S S"]) -> Float[np.ndarray, "S S"]:
    """The mask of a face, 0 to 1: `PASTED` classes, blurred twice, and then an empty border."""
    scale = len(classes) / _SIZE
    kernel = 2 * round(_RADIUS * scale) + 1
    mask = np.array(PASTED, np.float32)[classes]
    for _ in range(2):
        mask = cv2.GaussianBlur(mask, (kernel, kernel), _SIGMA * scale)
    border = round(_BORDER * scale)
    inner = slice(border, len(classes) - border)
    emptied = np.zeros_like(mask)
    emptied[inner, inner] = mask[inner, inner]
    return emptied


def load_parsenet(
    folder: Path,
    *,
    config: ParseNetConfig | None = None,
    dtype: DTypeLike = "float32",
) -> FaceParser | None:
    """The face parser of a model folder, or None where the folder holds no ParseNet.

    Args:
        folder: the model folder.
        config: the network's sizes; None is the published one's.
        dtype: dtype of the weights and the computation.

    Raises:
        WeightsError: the weights don't fit the sizes, or aren't whole or finite; all are named.
    """
    network = load_optional(folder, NAME, ParseNet, config or ParseNetConfig(), dtype)
    return None if network is None else FaceParser(network)


@jit(static_argnums=0)
def _classify(graph: nnx.GraphDef[ParseNet], weights: nnx.State, face: UInt8[Array, "S S 3"]) -> UInt8[Array, "S S"]:
    logits, _ = nnx.merge(graph, weights)(to_float(face[None]))
    return jnp.argmax(logits[0], axis=-1).astype(jnp.uint8)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return image if image.shape[:2] == (height, width) else cv2.resize(image, (width, height))
