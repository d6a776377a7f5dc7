"""MUSIQ's patches against a slow NumPy recomputation, and that neither padding nor batches change scores."""

import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.errors import InterLCMError
from interlcm_jax.metrics.musiq import MUSIQScorer
from interlcm_jax.metrics.musiq_network import MUSIQ, MUSIQConfig
from interlcm_jax.metrics.musiq_patches import (
    Patches,
    hashed_positions,
    multiscale_patches,
    num_patches,
    scale_sizes,
)
from tests.models.random_weights import random_network

MINIATURE = MUSIQConfig.miniature()


def pictures(height, width, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def cubic(x):
    x = abs(x)
    if x <= 1:
        return 1.25 * x**3 - 2.25 * x**2 + 1
    return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0


def resized(x, height, width):
    """PyTorch's bicubic: half-pixel centers, a = -0.75, borders replicated, no antialiasing; one pixel at a time."""
    out = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            y, z = (row + 0.5) * x.shape[0] / height - 0.5, (column + 0.5) * x.shape[1] / width - 0.5
            for i in range(math.floor(y) - 1, math.floor(y) + 3):
                for j in range(math.floor(z) - 1, math.floor(z) + 3):
                    source = x[min(max(i, 0), x.shape[0] - 1), min(max(j, 0), x.shape[1] - 1)]
                    out[row, column] += cubic(y - i) * cubic(z - j) * source
    return out


def slow_patches(picture, config):
    """One patch after the other, of one uint8 picture: pixels, position, scale."""
    size, found = config.patch_size, []
    native = picture / 127.5 - 1.0
    longest = max(native.shape[:2])
    for scale, longer in enumerate((*config.longer_sides, longest)):
        height, width = (round(side * longer / longest) for side in native.shape[:2])
        x = native if longer == longest else resized(native, height, width)
        rows, columns = math.ceil(height / size), math.ceil(width / size)
        top, left = (rows * size - height) // 2, (columns * size - width) // 2
        for row in range(rows):
            for column in range(columns):
                patch = np.zeros((size, size, 3))
                for i in range(size):
                    for j in range(size):
                        y, z = row * size + i - top, column * size + j - left
                        if 0 <= y < height and 0 <= z < width:
                            patch[i, j] = x[y, z]
                down, right = (
                    math.floor(Fraction(n * config.grid_size, of)) for n, of in ((row, rows), (column, columns))
                )
                found.append((patch, down * config.grid_size + right, scale))
    return [np.stack(parts) for parts in zip(*found, strict=True)]


@pytest.mark.parametrize("size", [(30, 45), (50, 19), (9, 13)])
def test_patches_are_those_of_a_slow_recomputation(size):
    batch = pictures(*size)
    ours = multiscale_patches(batch, MINIATURE)
    assert ours.pixels.shape[:2] == (2, num_patches(*size, MINIATURE))
    for i, picture in enumerate(batch):
        pixels, positions, scales = slow_patches(picture, MINIATURE)
        # As PyTorch's, the positions that are resized from are float32, and noise is steep.
        np.testing.assert_allclose(ours.pixels[i], pixels, atol=1e-5)
        np.testing.assert_array_equal(ours.positions[i], positions)
        np.testing.assert_array_equal(ours.scales[i], scales)
    assert np.all(ours.mask)


def test_floats_and_uint8_give_the_same_patches():
    batch = pictures(30, 45)
    floats = multiscale_patches(batch.astype(np.float32) / 127.5 - 1, MINIATURE)
    np.testing.assert_allclose(floats.pixels, multiscale_patches(batch, MINIATURE).pixels, atol=1e-6)


def test_published_sizes():
    config = MUSIQConfig()
    assert num_patches(512, 512, config) == 7 * 7 + 12 * 12 + 16 * 16 == 449
    assert scale_sizes(768, 1024, config) == [(168, 224), (288, 384), (768, 1024)]
    assert num_patches(768, 1024, config) == 6 * 7 + 9 * 12 + 24 * 32


def test_positions_cover_the_grid_and_share_it():
    np.testing.assert_array_equal(hashed_positions(10, 10, 10), np.arange(100))
    np.testing.assert_array_equal(hashed_positions(1, 4, 10), [0, 2, 5, 7])
    np.testing.assert_array_equal(hashed_positions(20, 20, 10)[[0, 1, 2, 19, 20, 40, 399]], [0, 0, 1, 9, 0, 10, 99])


@pytest.fixture(scope="module")
def network():
    return random_network(MUSIQ, MINIATURE)


def test_neither_padding_nor_batches_nor_other_sizes_change_a_score(network):
    small, large = pictures(9, 13), pictures(30, 45, count=3)
    alone = np.concatenate([MUSIQScorer(network)(small), MUSIQScorer(network)(large)])
    assert np.ptp(alone) > 0.01
    padded = [multiscale_patches(batch, MINIATURE, 60) for batch in (small, large)]
    together = Patches(*(jnp.concatenate(parts) for parts in zip(*padded, strict=True)))
    count = np.repeat([num_patches(*batch.shape[1:3], MINIATURE) for batch in (small, large)], (2, 3))
    np.testing.assert_array_equal(together.mask.sum(-1), count)
    assert max(count) < 60
    run = nnx.jit(lambda network, patches: network(*patches))
    np.testing.assert_allclose(run(network, together), alone, rtol=0, atol=1e-6)
    # What stands in the empty places isn't looked at.
    there = together.mask[..., None, None, None]
    other = together._replace(
        pixels=jnp.where(there, together.pixels, 7.0), scales=jnp.where(there[..., 0, 0, 0], together.scales, 2)
    )
    np.testing.assert_allclose(run(network, other), alone, rtol=0, atol=1e-6)
    single = MUSIQScorer(network, max_patches=60)
    np.testing.assert_allclose([single(image[None])[0] for image in large], alone[2:], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_scored_is_refused(network):
    scorer = MUSIQScorer(network, max_patches=40)
    for batch in (np.zeros((30, 45, 3), np.uint8), np.zeros((1, 30, 45, 1), np.uint8), np.zeros((1, 30, 45, 3), int)):
        with pytest.raises(InterLCMError, match=r"MUSIQ takes images \(B, H, W, 3\)"):
            scorer(batch)
    with pytest.raises(InterLCMError, match=r"60x90 into .* patches, but at most 40"):
        scorer(pictures(90, 60))
    with pytest.raises(InterLCMError, match="1x500 pixels is too long and narrow"):
        scorer(pictures(500, 1))
