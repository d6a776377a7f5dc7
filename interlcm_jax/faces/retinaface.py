"""RetinaFace with a ResNet-50 backbone.

Deng et al., "RetinaFace: Single-shot Multi-level Face Localization in the Wild" (CVPR 2020, arXiv 1905.00641), as
biubug6/Pytorch_Retinaface trained it and facexlib publishes it (`detection_Resnet50_Final.pth`). Submodules that the
release names are named as there.
"""

import dataclasses
from typing import NamedTuple, Self, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import BatchNorm, Conv, Init, nearest_resize

STRIDES = (8, 16, 32)  # of the three levels, finest first: pixels between their positions
LANDMARKS = 5
EXPANSION = 4  # a ResNet block's output over its inner width


@dataclasses.dataclass(frozen=True)
class RetinaFaceConfig(NetworkConfig):
    """Sizes of RetinaFace; the defaults are those of the published ResNet-50.

    Attributes:
        base_channels: width after the first convolution; the stages' inner widths are 1, 2, 4 and 8 times that.
        layers: residual blocks in each of the backbone's four stages.
        out_channels: width of the feature pyramid and the context modules.
        anchor_sizes: sides of the square anchors, pixels, equally many for each level, the finest level's first.
        center_variance: scale of the predicted positions, in anchor sides.
        size_variance: scale of the predicted logarithms of sizes.
    """

    base_channels: int = 64
    layers: tuple[int, ...] = (3, 4, 6, 3)
    out_channels: int = 256
    anchor_sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    center_variance: float = 0.1
    size_variance: float = 0.2

    @classmethod
    def miniature(cls) -> Self:
        """8 to 256 channels and five residual blocks, for tests."""
        return cls(base_channels=8, layers=(2, 1, 1, 1), out_channels=16)

    @property
    def anchors_per_position(self) -> int:
        """Anchors at each position of a level."""
        return len(self.anchor_sizes) // len(STRIDES)

    @property
    def negative_slope(self) -> float:
        """The rectifiers' slope below zero in pyramid and context modules; narrow networks have leaky ones."""
        return 0.1 if self.out_channels <= 64 else 0.0


class Predictions(NamedTuple):
    """What the network says of each anchor, in the order of `anchors.make_anchors`.

    Attributes:
        scores: probability of a face, float32; 0 outside the photo.
        boxes: box relative to the anchor (see `anchors.decode_boxes`).
        landmarks: landmarks relative to the anchor (see `anchors.decode_landmarks`).
    """

    scores: Float[Array, "B A"]
    boxes: Float[Array, "B A 4"]
    landmarks: Float[Array, "B A 10"]


class ConvNorm(nnx.Module):
    """Convolution, batch normalization by running statistics, and a rectifier, unless `slope` is None."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        slope: float | None = 0.0,
        **init: Unpack[Init],
    ):
        self.conv = Conv(in_channels, out_channels, kernel_size, stride=stride, use_bias=False, **init)
        self.norm = BatchNorm(out_channels, **init)
        self.slope, self.pointwise = slope, kernel_size == 1

    def __call__(self, x: Float[Array, "B H W C"], inside: Float[Array, "B Y X 1"] | None) -> Float[Array, "B h w D"]:
        """`inside` marks the photo's pixels; what is outside counts as zero, as beyond the border."""
        x = self.norm(self.conv(x if self.pointwise else _only(x, inside)), train=False)
        return x if self.slope is None else nnx.leaky_relu(x, self.slope)


class Bottleneck(nnx.Module):
    """A block of ResNet-50 in torchvision's version, which strides in the 3x3 convolution."""

    def __init__(self, in_channels: int, width: int, stride: int, **init: Unpack[Init]):
        out_channels = width * EXPANSION
        self.conv1 = ConvNorm(in_channels, width, 1, **init)
        self.conv2 = ConvNorm(width, width, 3, stride=stride, **init)
        self.conv3 = ConvNorm(width, out_channels, 1, slope=None, **init)
        changes = stride > 1 or in_channels != out_channels
        self.downsample = ConvNorm(in_channels, out_channels, 1, stride=stride, slope=None, **init) if changes else None

    def __call__(self, x: Float[Array, "B H W C"], inside: Float[Array, "B Y X 1"] | None) -> Float[Array, "B h w D"]:
        """Adds the residual to the input, or to its projection where the shape changes."""
        residual = self.conv3(self.conv2(self.conv1(x, inside), inside), inside)
        return nnx.relu(residual + (x if self.downsample is None else self.downsample(x, inside)))


class ResNet(nnx.Module):
    """The backbone; its last three stages are the levels."""

    def __init__(self, config: RetinaFaceConfig, **init: Unpack[Init]):
        width = config.base_channels
        self.conv1 = ConvNorm(3, width, 7, stride=2, **init)
        self.layer1 = _stage(width, width, config.layers[0], 1, **init)
        self.layer2 = _stage(width * EXPANSION, width * 2, config.layers[1], 2, **init)
        self.layer3 = _stage(width * 2 * EXPANSION, width * 4, config.layers[2], 2, **init)
        self.layer4 = _stage(width * 4 * EXPANSION, width * 8, config.layers[3], 2, **init)

    def __call__(
        self, x: Float[Array, "B H W 3"], inside: Float[Array, "B Y X 1"] | None
    ) -> list[Float[Array, "B _ _ _"]]:
        """Features at strides 8, 16 and 32."""
        # Nothing is negative here, so the zeros outside don't change the maximum at the border.
        x = _only(self.conv1(x, inside), inside)
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, inside)
            features.append(x)
        return features[1:]


class FeaturePyramid(nnx.Module):
    """Adds the coarser levels to the finer ones, all at one width."""

    def __init__(self, config: RetinaFaceConfig, **init: Unpack[Init]):
        width, slope = config.out_channels, config.negative_slope
        widths = [config.base_channels * EXPANSION * 2**i for i in (1, 2, 3)]
        self.output1, self.output2, self.output3 = (ConvNorm(w, width, 1, slope=slope, **init) for w in widths)
        self.merge1, self.merge2 = (ConvNorm(width, width, 3, slope=slope, **init) for _ in range(2))

    def __call__(
        self, features: list[Float[Array, "B _ _ _"]], inside: Float[Array, "B Y X 1"] | None
    ) -> list[Float[Array, "B _ _ D"]]:
        """The three levels, finest first."""
        outputs = (self.output1, self.output2, self.output3)
        fine, middle, coarse = (output(x, inside) for output, x in zip(outputs, features, strict=True))
        middle = self.merge2(middle + nearest_resize(coarse, middle.shape[1:3], (1, 2)), inside)
        fine = self.merge1(fine + nearest_resize(middle, fine.shape[1:3], (1, 2)), inside)
        return [fine, middle, coarse]


class SSH(nnx.Module):
    """A level's context: 3x3, 5x5 and 7x7 fields side by side (Najibi et al., ICCV 2017, arXiv 1708.03979)."""

    def __init__(self, config: RetinaFaceConfig, **init: Unpack[Init]):
        width, slope = config.out_channels, config.negative_slope
        self.conv3X3 = ConvNorm(width, width // 2, 3, slope=None, **init)
        self.conv5X5_1 = ConvNorm(width, width // 4, 3, slope=slope, **init)
        self.conv5X5_2 = ConvNorm(width // 4, width // 4, 3, slope=None, **init)
        self.conv7X7_2 = ConvNorm(width // 4, width // 4, 3, slope=slope, **init)
        self.conv7x7_3 = ConvNorm(width // 4, width // 4, 3, slope=None, **init)

    def __call__(self, x: Float[Array, "B h w D"], inside: Float[Array, "B Y X 1"] | None) -> Float[Array, "B h w D"]:
        """The three fields' channels one after the other."""
        shared = self.conv5X5_1(x, inside)
        fields = [
            self.conv3X3(x, inside),
            self.conv5X5_2(shared, inside),
            self.conv7x7_3(self.conv7X7_2(shared, inside), inside),
        ]
        return nnx.relu(jnp.concatenate(fields, axis=-1))


class RetinaFace(nnx.Module):
    """Finds faces: for each anchor a score, a box and five landmarks.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation; normalization and scores are in float32 all the same.
        param_dtype: dtype the weights are kept in; running statistics are in float32 all the same.
    """

    def __init__(
        self,
        config: RetinaFaceConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config = config
        self.body = ResNet(config, **init)
        self.fpn = FeaturePyramid(config, **init)
        self.ssh1, self.ssh2, self.ssh3 = (SSH(config, **init) for _ in STRIDES)
        self.class_heads, self.box_heads, self.landmark_heads = (
            nnx.List([Conv(config.out_channels, config.anchors_per_position * n, 1, **init) for _ in STRIDES])
            for n in (2, 4, 2 * LANDMARKS)
        )

    def __call__(self, x: Float[Array, "B H W 3"], inside: Float[Array, "B H W 1"] | None = None) -> Predictions:
        """What the network says of every anchor.

        Args:
            x: photos, prepared by `prepare`.
            inside: 1 at the photos' pixels and 0 where they are padded, to the right and below; None where they
                aren't. With it H and W must be multiples of 32, and the anchors on the photo get what they get from
                the photo without padding.
        """
        levels = self.fpn(self.body(x, inside), inside)
        levels = [ssh(level, inside) for ssh, level in zip((self.ssh1, self.ssh2, self.ssh3), levels, strict=True)]
        scores = [self._scores(head(level), inside) for head, level in zip(self.class_heads, levels, strict=True)]
        boxes, landmarks = (
            [_by_anchor(head(level), n) for head, level in zip(heads, levels, strict=True)]
            for heads, n in ((self.box_heads, 4), (self.landmark_heads, 2 * LANDMARKS))
        )
        return Predictions(*(jnp.concatenate(parts, axis=1) for parts in (scores, boxes, landmarks)))

    def _scores(self, logits: Float[Array, "B h w C"], inside: Float[Array, "B Y X 1"] | None) -> Float[Array, "B A"]:
        """Background and face alternate among the channels."""
        logits = logits.astype(jnp.float32).reshape(*logits.shape[:3], -1, 2)
        return _by_anchor(_only(jax.nn.softmax(logits)[..., 1], inside), 1)[..., 0]


def prepare(pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """RGB pixels, 0 to 255, as the network was trained on: BGR less the mean color."""
    return pixels[..., ::-1] - jnp.array([104.0, 117.0, 123.0], pixels.dtype).reshape(1, 1, 1, 3)


def _stage(in_channels: int, width: int, blocks: int, stride: int, **init: Unpack[Init]) -> nnx.List:
    first = Bottleneck(in_channels, width, stride, **init)
    return nnx.List([first, *(Bottleneck(width * EXPANSION, width, 1, **init) for _ in range(blocks - 1))])


def _by_anchor(x: Float[Array, "B h w C"], values: int) -> Float[Array, "B A n"]:
    return x.reshape(x.shape[0], -1, values)


def _only(x: Float[Array, "B h w C"], inside: Float[Array, "B H W 1"] | None) -> Float[Array, "B h w C"]:
    """Zeroes what is outside the photo: positions that start at a pixel outside."""
    if inside is None:
        return x
    stride = inside.shape[1] // x.shape[1]
    return x * inside[:, ::stride, ::stride].astype(x.dtype)
