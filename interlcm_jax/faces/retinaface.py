"""RetinaFace with a ResNet-50 or a MobileNet as its backbone.

Deng et al., "RetinaFace: Single-shot Multi-level Face Localization in the Wild" (CVPR 2020, arXiv 1905.00641), as
biubug6/Pytorch_Retinaface trained it (`mobilenet0.25_Final.pth`) and facexlib publishes it
(`detection_Resnet50_Final.pth`). Submodules that the release names are named as there.
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple, Self, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.faces.backbones import EXPANSION, ConvNorm, MobileNet, ResNet, zero_outside
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import Conv, Init, nearest_resize

STRIDES = (8, 16, 32)  # of the three levels, finest first: pixels between their positions
LANDMARKS = 5
RESNET, MOBILENET = "resnet", "mobilenet"


@dataclasses.dataclass(frozen=True)
class RetinaFaceConfig(NetworkConfig):
    """Sizes of RetinaFace; the defaults are those of the published ResNet-50.

    Attributes:
        backbone: "resnet" or "mobilenet".
        base_channels: width after the first convolution; the inner widths of the ResNet's stages are 1, 2, 4 and 8
            times that, and the widths of the MobileNet's blocks 2, 4, 8, 16 and 32 times.
        layers: blocks of the backbone of each of these widths.
        out_channels: width of the feature pyramid and the context modules.
        anchor_sizes: sides of the square anchors, pixels, equally many for each level, the finest level's first.
        center_variance: scale of the predicted positions, in anchor sides.
        size_variance: scale of the predicted logarithms of sizes.
    """

    backbone: str = RESNET
    base_channels: int = 64
    layers: tuple[int, ...] = (3, 4, 6, 3)
    out_channels: int = 256
    anchor_sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    center_variance: float = 0.1
    size_variance: float = 0.2

    @classmethod
    def mobilenet(cls) -> Self:
        """The published MobileNet, a quarter as wide as MobileNetV1."""
        return cls(backbone=MOBILENET, base_channels=8, layers=(1, 2, 2, 6, 2), out_channels=64)

    @classmethod
    def published(cls, names: Iterable[str]) -> Self:
        """Which of the two published networks weights of these names are of, in PyTorch or here."""
        return cls.mobilenet() if any(name.startswith("body.stage1.") for name in names) else cls()

    @classmethod
    def miniature(cls) -> Self:
        """8 to 256 channels and five residual blocks, for tests."""
        return cls(base_channels=8, layers=(2, 1, 1, 1), out_channels=16)

    def contradictions(self) -> list[str]:
        """What of the sizes doesn't go together."""
        if self.backbone not in (RESNET, MOBILENET):
            return [f"backbone is {self.backbone!r}, but must be {RESNET} or {MOBILENET}"]
        widths = 4 if self.backbone == RESNET else 5
        if len(self.layers) != widths:
            return [f"layers has {len(self.layers)} entries, but a {self.backbone} has blocks of {widths} widths"]
        return []

    @property
    def level_channels(self) -> tuple[int, ...]:
        """The backbone's width at each of the three levels."""
        finest = self.base_channels * (2 * EXPANSION if self.backbone == RESNET else 8)
        return finest, 2 * finest, 4 * finest

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


class FeaturePyramid(nnx.Module):
    """Adds the coarser levels to the finer ones, all at one width."""

    def __init__(self, config: RetinaFaceConfig, **init: Unpack[Init]):
        width, slope = config.out_channels, config.negative_slope
        levels = config.level_channels
        self.output1, self.output2, self.output3 = (ConvNorm(w, width, 1, slope=slope, **init) for w in levels)
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
        body = ResNet if config.backbone == RESNET else MobileNet
        self.body = body(config.base_channels, config.layers, **init)
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
        return _by_anchor(zero_outside(jax.nn.softmax(logits)[..., 1], inside), 1)[..., 0]


def prepare(pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """RGB pixels, 0 to 255, as the network was trained on: BGR less the mean color."""
    return pixels[..., ::-1] - jnp.array([104.0, 117.0, 123.0], pixels.dtype).reshape(1, 1, 1, 3)


def _by_anchor(x: Float[Array, "B h w C"], values: int) -> Float[Array, "B A n"]:
    return x.reshape(x.shape[0], -1, values)
