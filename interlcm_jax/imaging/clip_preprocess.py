"""From an image to what CLIP's vision tower takes."""

import numpy as np
from jaxtyping import Array, Float

from interlcm_jax.imaging.resize import bicubic_resize

# Of CLIP's training images (Radford et al. 2021), in [0, 1].
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def clip_preprocess(image: Float[Array, "B H W 3"], size: int = 224) -> Float[Array, "B size size 3"]:
    """Resizes the short side to `size`, crops the center and normalizes, as the release does.

    The resize has no antialiasing: the release's torchvision 0.14 applies none to tensors.

    Args:
        image: RGB in [-1, 1], float32.
        size: side of the square that the tower takes.
    """
    height, width = image.shape[1:3]
    short = min(height, width)
    height, width = (int(size * side / short) for side in (height, width))
    resized = bicubic_resize((image + 1) / 2, (height, width))
    top, left = round((height - size) / 2), round((width - size) / 2)
    cropped = resized[:, top : top + size, left : left + size]
    return (cropped - CLIP_MEAN.reshape(1, 1, 1, 3)) / CLIP_STD.reshape(1, 1, 1, 3)
