"""Resizing, CLIP's preprocessing and color correction against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from interlcm_jax.imaging.clip_preprocess import clip_preprocess
from interlcm_jax.imaging.color_fix import color_fix
from interlcm_jax.imaging.resize import bicubic_resize, bilinear_resize
from tests.parity import bridge

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def images(batch, height, width, seed=0):
    return 2 * torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((64, 64), (28, 28)), ((37, 53), (224, 320)), ((513, 300), (224, 131)), ((9, 7), (9, 31)), ((1, 3), (5, 7))],
)
def test_bicubic_resize(batch, shape, size):
    x = images(batch, *shape)
    expected = F.interpolate(x, size=size, mode="bicubic", align_corners=False)
    bridge.assert_close(bicubic_resize(bridge.nhwc(x), size), expected, bridge.CLOSED_FORM)


def test_bicubic_resize_of_the_release():
    x = images(1, 512, 512)
    expected = F.interpolate(x, size=(224, 224), mode="bicubic", align_corners=False)
    resize = jax.jit(bicubic_resize, static_argnums=1)
    bridge.assert_close(resize(bridge.nhwc(x), (224, 224)), expected, bridge.CLOSED_FORM)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((512, 512), (299, 299)), ((512, 512), (128, 128)), ((37, 53), (224, 320)), ((9, 7), (9, 31)), ((1, 3), (5, 7))],
)
def test_bilinear_resize(shape, size):
    x = images(2, *shape)
    expected = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    resize = jax.jit(bilinear_resize, static_argnums=1)
    bridge.assert_close(resize(bridge.nhwc(x), size), expected, bridge.CLOSED_FORM)


def test_bicubic_resize_is_differentiable_as_pytorch_is():
    x, weight = images(1, 37, 53), images(1, 16, 21, seed=1)
    ours = jax.grad(lambda y: jnp.sum(bicubic_resize(y, (16, 21)) * bridge.nhwc(weight)))(bridge.nhwc(x))
    x.requires_grad_()
    (F.interpolate(x, size=(16, 21), mode="bicubic", align_corners=False) * weight).sum().backward()
    bridge.assert_close(ours, x.grad, bridge.CLOSED_FORM)


@pytest.mark.parametrize(
    ("height", "width", "resized"),
    [(512, 512, (32, 32)), (61, 47, (41, 32)), (47, 62, (32, 42)), (32, 97, (32, 97))],
)
def test_clip_preprocess(height, width, resized):
    x = images(2, height, width)
    expected = F.interpolate((x + 1) / 2, size=resized, mode="bicubic", align_corners=False)
    top, left = (round((side - 32) / 2) for side in resized)
    expected = (expected[..., top : top + 32, left : left + 32] - MEAN) / STD
    bridge.assert_close(clip_preprocess(bridge.nhwc(x), 32), expected, bridge.CLOSED_FORM)


def wavelet_levels(x):
    """The high and low frequencies of the description, level by level."""
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(row, row).expand(3, 1, 3, 3)
    high = torch.zeros_like(x)
    for level in range(5):
        radius = 2**level
        padded = F.pad(x, (radius,) * 4, mode="replicate")
        low = F.conv2d(padded, kernel, groups=3, dilation=radius)
        high, x = high + (x - low), low
    return high, x


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (3, 41, 67), (1, 9, 5)])
def test_wavelet(batch, height, width):
    restored, lq = images(batch, height, width), images(batch, height, width, seed=1) ** 3
    expected = wavelet_levels(restored)[0] + wavelet_levels(lq)[1]
    bridge.assert_close(color_fix(bridge.nhwc(restored), bridge.nhwc(lq), "wavelet"), expected, bridge.CLOSED_FORM)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 16, 16), (3, 9, 7)])
@pytest.mark.parametrize("contrast", [1, 0.005], ids=["unit", "epsilon and unbiased variance show"])
def test_adain(batch, height, width, contrast):
    restored, lq = contrast * images(batch, height, width), 0.2 + 0.5 * images(batch, height, width, seed=1)

    def statistics(x):
        return x.mean((2, 3), keepdim=True), (x.var((2, 3), unbiased=True, keepdim=True) + 1e-5).sqrt()

    (mean, std), (wanted_mean, wanted_std) = statistics(restored), statistics(lq)
    expected = (restored - mean) / std * wanted_std + wanted_mean
    bridge.assert_close(color_fix(bridge.nhwc(restored), bridge.nhwc(lq), "adain"), expected, bridge.CLOSED_FORM)


def test_none_is_the_identity():
    x = bridge.nhwc(images(1, 5, 4))
    np.testing.assert_array_equal(color_fix(x, jnp.zeros_like(x), "none"), x)
