"""The losses that InterLCM trains with (section 3.4 of the paper; constants as in the release)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

COLOR_SQUARE = 8
TEXTURE_SQUARE = 8
# Offsets of the four directions of second differences, rows and columns.
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Of a mean square below which a root's gradient would blow up; a tenth of a level of 255.
_FAINT = 1e-6


def l1(restored: Float[Array, "B H W 3"], hq: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """Mean absolute difference of images in [-1, 1]."""
    return jnp.abs(restored - hq).mean()


def color(restored: Float[Array, "B H W 3"], hq: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """Mean absolute difference of the means of squares of `COLOR_SQUARE` pixels.

    Where details are missed, a pixel's difference is theirs, and its sign hardly depends on color: an autoencoder
    that is trained on `l1` alone gives green leaves back as brown ones. Details cancel in the means.
    """
    return jnp.abs(_square_means(restored - hq, COLOR_SQUARE)).mean()


def texture(restored: Float[Array, "B H W 3"], hq: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """Mean absolute difference of how much fine detail there is, whatever its phase.

    That is the root mean square, over squares of `TEXTURE_SQUARE` pixels, of second differences in each of four
    directions. `l1` alone leaves out all detail whose place can't be told; this asks for as much of it, and as
    directed, as there was.
    """
    return _amount_difference(_second_differences, restored, hq)


def finest(restored: Float[Array, "B H W 3"], hq: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """As `texture`, of second differences taken twice: of detail near the finest that pixels can show.

    `texture` is mostly of coarser detail, of which there is more, and which costs more structure where it is invented.
    They are divided by four: stripes a pixel wide weigh as much as in `texture`, stripes of two pixels half as much.
    """
    return _amount_difference(_fourth_differences, restored, hq)


def _amount_difference(difference: Callable[[Array, int, int], Array], first: Array, second: Array) -> Float[Array, ""]:
    """Mean absolute difference of differences' root mean squares over squares of `TEXTURE_SQUARE` pixels."""

    def amounts(image: Float[Array, "B H W 3"]) -> Float[Array, "D B h w 3"]:
        differences = [difference(image, *direction) for direction in _DIRECTIONS]
        return jnp.stack([jnp.sqrt(_square_means(each**2, TEXTURE_SQUARE) + _FAINT) for each in differences])

    return jnp.abs(amounts(first) - amounts(second)).mean()


def _second_differences(image: Float[Array, "B H W 3"], rows: int, columns: int) -> Float[Array, "B h w 3"]:
    """Second differences in one direction; a border of one pixel is left out."""
    height, width = image.shape[1:3]

    def shifted(y: int, x: int) -> Array:
        return image[:, 1 + y : height - 1 + y, 1 + x : width - 1 + x]

    return shifted(rows, columns) + shifted(-rows, -columns) - 2 * shifted(0, 0)


def _fourth_differences(image: Float[Array, "B H W 3"], rows: int, columns: int) -> Float[Array, "B h w 3"]:
    """A quarter of second differences' second differences; a border of two pixels is left out."""
    return _second_differences(_second_differences(image, rows, columns), rows, columns) / 4


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


def matching(fake: Sequence[Float[Array, "B _ _ _"]], real: Sequence[Float[Array, "B _ _ _"]]) -> Float[Array, ""]:
    """Mean absolute difference of the discriminator's features of restored and real images, a layer as much as another.

    It ties what the discriminator asks for to the very image (Wang et al. 2018, pix2pixHD, equation 4).
    """
    return sum(jnp.abs(a - b).mean() for a, b in zip(fake, real, strict=True)) / len(fake)


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
