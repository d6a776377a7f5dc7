"""Identity without PyTorch: what the angle is, and the script's mean."""

import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.metrics.arcface import ArcFace, ArcFaceConfig
from interlcm_jax.metrics.identity import IDENTICAL, angle, deg, mean_deg
from tests.models.random_weights import random_network


@pytest.mark.parametrize("degrees", [0, 1e-3, 1, 60, 90, 135, 179.99, 180])
def test_the_angle_keeps_its_digits(degrees):
    radians = np.radians(degrees)
    a = jnp.array([[2.0, 0.0, 0.0]])
    b = jnp.array([[np.cos(radians), 0, np.sin(radians)]], jnp.float32) * 5
    np.testing.assert_allclose(angle(a, b), [radians], atol=3e-7)


def test_mean_deg_leaves_out_what_is_nearly_identical():
    assert mean_deg(np.array([0.2, 30, IDENTICAL, 50, 0.9])) == (27.0, 2)
    assert np.isnan(mean_deg(np.array([np.nan, 30]))[0])
    with pytest.raises(InterLCMError, match="all 2 are"):
        mean_deg(np.array([0.2, 0.5]))


def test_an_image_is_itself():
    network = random_network(ArcFace, ArcFaceConfig.miniature())
    faces = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    degrees = np.asarray(deg(network, np.stack([faces[0], faces[1]]), np.stack([faces[0], faces[0]])))
    assert degrees[0] < 1e-4 < 0.1 < degrees[1]
