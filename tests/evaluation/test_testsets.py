"""Published test sets under their published names, and what is looked for where one isn't there."""

import random

import pytest

from interlcm_jax.data.degradation import degrade
from interlcm_jax.data.grid import GridConfig
from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.testsets import TEST_SETS, Folders, find_folders, named
from tests.evaluation.pictures import picture


@pytest.mark.parametrize("test_set", TEST_SETS.values(), ids=TEST_SETS)
def test_published_folders_are_found(tmp_path, test_set):
    for names in (test_set.lq, test_set.hq or ()):
        for name in names[-1:]:
            (tmp_path / name).mkdir()
    found = find_folders(tmp_path, test_set.name)
    assert found.lq == tmp_path / test_set.lq[-1]
    assert found.hq == (None if test_set.hq is None else tmp_path / test_set.hq[-1])


def test_our_own_sets_and_plain_folders(tmp_path):
    assert find_folders(tmp_path) == Folders(tmp_path, None)
    (tmp_path / "lq").mkdir()
    assert find_folders(tmp_path) == Folders(tmp_path / "lq", None)
    (tmp_path / "hq").mkdir()
    assert find_folders(tmp_path, "celeba-test") == Folders(tmp_path / "lq", tmp_path / "hq")


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / "self_celeba_512_v2").mkdir()
    with pytest.raises(InterLCMError, match=r"celeba-test-daefr isn't here: no celeba_512_validation/ or"):
        find_folders(tmp_path, "celeba-test-daefr")
    with pytest.raises(InterLCMError, match="no such folder"):
        find_folders(tmp_path / "none", "lfw-test")
    with pytest.raises(InterLCMError, match="choose one of celeba-test, "):
        named("celeba")


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
