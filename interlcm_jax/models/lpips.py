"""LPIPS (VGG16, v0.1): the learned perceptual distance, as the lpips-j package computes it.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018, arXiv 1801.03924).
lpips-j looks for its weights on the hub each time it is traced and compiles them into the program as constants; here
the same network takes them as an argument. `convert.lpips` reads them.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from flaxmodels import VGG16
from jaxtyping import Array, Float
from lpips_j import lpips as lpips_j

Params = dict[str, Any]  # nested: {"vgg": {"conv1_1": {"kernel", "bias"}, ...}, "lins_0": {"layer": {"kernel"}}, ...}

_LAYERS = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512, "relu5_3": 512}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels in [0, 1]


def lpips(
    params: Params,
    x: Float[Array, "B H W 3"],
    y: Float[Array, "B H W 3"],
    normalization: Literal["standard", "reference"] = "standard",
) -> Float[Array, "B"]:
    """The distance of each pair of images, computed in float32; 0 (to 1e-12) for equal ones.

    Args:
        params: the weights (see `convert.lpips.load`).
        x: images in [-1, 1], at least 16 x 16.
        y: images to compare them with.
        normalization: "standard" for the distance of the papers; "reference" as InterLCM's release trains: the images
            are first normalized by ImageNet's mean and standard deviation, which LPIPS then does once more.
    """
    x, y = (_normalized(image.astype(jnp.float32), normalization) for image in (x, y))
    return _Network().apply({"params": params}, x, y)[:, 0, 0, 0]


def skeleton() -> dict[str, jax.ShapeDtypeStruct]:
    """The weights by path, like `vgg.conv1_1.kernel`, as shapes (see `convert.rules`)."""
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    return traverse_util.flatten_dict(
        jax.eval_shape(_Network().init, jax.random.key(0), image, image)["params"], sep="."
    )


def random_params(seed: int) -> Params:
    """Random weights of the real sizes (14.7 M), for runs that only exercise the code."""
    generator, params = np.random.default_rng(seed), {}
    for path, spec in skeleton().items():
        if path.startswith("lins"):  # positive, as the real ones: the distance must grow with every difference
            array = np.full(spec.shape, 1 / spec.size)
        elif path.endswith("bias"):
            array = np.zeros(spec.shape)
        else:
            array = generator.standard_normal(spec.shape) * (2 / math.prod(spec.shape[:-1])) ** 0.5
        params[path] = jnp.asarray(array, jnp.float32)
    return traverse_util.unflatten_dict(params, sep=".")


def _normalized(image: jax.Array, normalization: str) -> jax.Array:
    if normalization == "standard":
        return image
    if normalization == "reference":
        return ((image + 1) / 2 - jnp.array([[[_MEAN]]])) / jnp.array([[[_STD]]])
    raise ValueError(f"normalization={normalization!r} is neither 'standard' nor 'reference'")


class _Network(lpips_j.LPIPS):
    """lpips-j's network, with parameters in place of the files it opens."""

    def setup(self):
        self.feature_names = list(_LAYERS)
        self.vgg = VGG16(output="activations", pretrained=None, include_head=False)
        self.lins = [lpips_j.NetLinLayer(jnp.zeros((1, 1, width, 1))) for width in _LAYERS.values()]
