"""DifFace's grid of degradations."""

import random

from interlcm_jax.data.degradation import degrade
from interlcm_jax.data.grid import GridConfig
from tests.evaluation.pictures import picture


def test_difface_grid_in_the_releases_order():
    draws = [one.blind for one in GridConfig().draws(10000, 4000)]
    assert len(set((d.jpeg_quality, d.scale, d.noise_sigma, d.sigma_x, d.rotation) for d in draws)) == 4000
    assert [(d.jpeg_quality, d.scale, d.noise_sigma) for d in (draws[0], draws[16], draws[80], draws[800])] == [
        (30, 4, 1),
        (30, 4, 5),
        (30, 8, 1),
        (40, 4, 1),
    ]
    assert [d.sigma_x for d in draws[:9]] == [4, 4, 4, 4, 8, 8, 8, 8, 12]
    random.seed(10000)
    assert [d.sigma_y for d in draws] == [random.choice([4, 8, 12, 16]) for _ in range(4000)]
    assert len({d.noise_seed for d in draws}) == 4000
    few = [one.blind for one in GridConfig().draws(10000, 10)]
    assert {d.jpeg_quality for d in few} == {30, 40, 50, 60, 70}
    assert [one.blind for one in GridConfig().draws(10000, 10)] == few
    assert [one.blind for one in GridConfig().draws(0, 10)] != few


def test_a_point_of_the_grid_degrades():
    first, *_, last = GridConfig().draws(0, 40)
    hq = picture(0, 64)
    assert degrade(hq, first).shape == hq.shape
    assert degrade(hq, last).tobytes() != degrade(hq, first).tobytes()
