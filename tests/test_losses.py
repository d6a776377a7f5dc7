"""What isn't compared with PyTorch elsewhere: the loss on colours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax import losses


def test_colour_is_of_means_and_blind_to_details_that_cancel():
    hq = jnp.zeros((2, 16, 24, 3))
    rows, columns = np.indices((16, 24))
    checks = jnp.asarray(1.0 - 2.0 * ((rows + columns) % 2), jnp.float32)[None, :, :, None]
    assert float(losses.colour(hq + 0.5 * checks, hq)) == pytest.approx(0, abs=1e-7)
    green = hq.at[..., 1].add(0.3)
    assert float(losses.colour(green + 0.5 * checks, hq)) == pytest.approx(0.1)


def test_colour_equals_a_plain_computation_and_leaves_odd_edges_out():
    first, second = (np.asarray(jax.random.normal(jax.random.key(i), (2, 19, 25, 3))) for i in (0, 1))
    gaps = [
        abs((first - second)[b, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8, c].mean())
        for b in range(2)
        for y in range(2)
        for x in range(3)
        for c in range(3)
    ]
    assert float(losses.colour(jnp.asarray(first), jnp.asarray(second))) == pytest.approx(np.mean(gaps), rel=1e-5)
