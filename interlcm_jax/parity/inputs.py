"""What both sides restore: an image, and the noise of every call."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from interlcm_jax.imaging.io import fit_square, read_image
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.model_folder import ModelConfig


def read_face(path: Path | None, config: ModelConfig, seed: int = 0) -> Float[np.ndarray, "1 H W 3"]:
    """An aligned face in [-1, 1] at the model's size; None makes up an image of waves from `seed`.

    Raises:
        InterLCMError: the file can't be read as an image.
    """
    size = config.image_size
    if path is not None:
        return to_float(fit_square(read_image(path), size))[None]
    ramp = np.linspace(0, 1, size)
    across, down = np.random.default_rng(seed).uniform(0, 12, (2, 1, 1, 3))
    return np.sin(across * ramp[:, None] + down * ramp[:, None, None])[None].astype(np.float32)


def draw_noise(
    config: ModelConfig, shape: tuple[int, ...], calls: int, seed: int = 0
) -> Float[np.ndarray, "calls B h w L"]:
    """A standard normal draw before each call, for images of `shape`, (B, H, W, 3)."""
    latents = (calls, shape[0], *config.latent_shape(shape))
    return np.random.default_rng([seed, 1]).standard_normal(latents, np.float32)
