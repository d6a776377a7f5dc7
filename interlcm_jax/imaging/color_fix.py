"""Color correction of a restored face by the image it was restored from."""

from collections.abc import Callable

from jax import numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax.errors import InterLCMError

WAVELET_LEVELS = 5
FIDELITY_LEVELS = 3
ADAIN_EPSILON = 1e-5

Images = Float[Array, "B H W C"]


def color_fix(restored: Images, lq: Images, method: str) -> Images:
    """Takes the colors of `lq` over to `restored`.

    Args:
        restored: the network's result, float32 in about [-1, 1]; the result isn't clipped either.
        lq: the low-quality input, of the same size and range.
        method: a name in `METHODS`.

    Raises:
        InterLCMError: there is no such method.
    """
    if method not in METHODS:
        raise InterLCMError(f"color fix {method!r} doesn't exist; choose one of {', '.join(METHODS)}")
    return METHODS[method](restored, lq)


def wavelet(restored: Images, lq: Images) -> Images:
    """The details of `restored` over the low frequencies of `lq`, as in StableSR (arXiv 2305.07015).

    The details are what five ever wider blurs take away one after the other, which adds up to the image less its last
    low-pass; and as a blur is linear, one blur of the difference does for both images.
    """
    return restored + low_pass(lq - restored)


def adain(restored: Images, lq: Images) -> Images:
    """`restored` with each image's and channel's mean and deviation those of `lq` (arXiv 1703.06868)."""
    (mean, std), (wanted_mean, wanted_std) = _mean_std(restored), _mean_std(lq)
    return (restored - mean) / std * wanted_std + wanted_mean


def none(restored: Images, lq: Images) -> Images:
    """`restored` as it is."""
    return restored


METHODS: dict[str, Callable[[Images, Images], Images]] = {"wavelet": wavelet, "adain": adain, "none": none}


def towards_input(restored: Images, lq: Images, fidelity: Array) -> Images:
    """Moves `restored` towards the input's own shapes and tones, and keeps its details.

    Of all that is wider than a few pixels, the share `fidelity` is the input's. At 1 that is the color fix
    `wavelet` with three levels instead of five: the face's features stand where they stood, and only what a blur of
    three levels takes away is the network's.

    Args:
        restored: after the color fix, float32.
        lq: the low-quality input, of the same size and range.
        fidelity: 0 to 1.
    """
    return restored + fidelity * low_pass(lq - restored, FIDELITY_LEVELS)


def low_pass(x: Images, levels: int = WAVELET_LEVELS) -> Images:
    """Blurs by [1 2 1]ᵀ[1 2 1] / 16 at dilations 1, 2, 4, 8, 16, one for each level, with replicated borders."""
    for level in range(levels):
        for axis in (1, 2):
            x = _blur(x, 2**level, axis)
    return x


def _blur(x: Images, dilation: int, axis: int) -> Images:
    """[1 2 1] / 4 along one axis; the two axes one after the other make the square kernel."""
    length = x.shape[axis]
    positions = jnp.arange(length)
    before = jnp.take(x, jnp.maximum(positions - dilation, 0), axis=axis)
    after = jnp.take(x, jnp.minimum(positions + dilation, length - 1), axis=axis)
    return 0.25 * before + 0.5 * x + 0.25 * after


def _mean_std(x: Images) -> tuple[Array, Array]:
    variance = jnp.var(x, axis=(1, 2), keepdims=True, ddof=1)
    return jnp.mean(x, axis=(1, 2), keepdims=True), jnp.sqrt(variance + ADAIN_EPSILON)
