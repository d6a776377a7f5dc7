"""The losses that InterLCM trains with (section 3.4 of the paper; constants as in the release)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

COLOUR_SQUARE = 8


def l1(restored: Float[Array, "B H W 3"], hq: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """Mean absolute difference of images in [-1, 1]."""
    return jnp.abs(restored - hq).mean()


def colour(restored: Float[Array, "B H W 3"], hq: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """Mean absolute difference of the means of squares of `COLOUR_SQUARE` pixels.

    Where details are missed, a pixel's difference is theirs, and its sign hardly depends on colour: an autoencoder
    that is trained on `l1` alone gives green leaves back as brown ones. Details cancel in the means.
    """
    batch, height, width, channels = restored.shape
    rows, columns = height // COLOUR_SQUARE, width // COLOUR_SQUARE
    gap = (restored - hq)[:, : rows * COLOUR_SQUARE, : columns * COLOUR_SQUARE]
    squares = gap.reshape(batch, rows, COLOUR_SQUARE, columns, COLOUR_SQUARE, channels)
    return jnp.abs(squares.mean((2, 4))).mean()


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
