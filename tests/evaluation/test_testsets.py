"""Published test sets under their published names, and what is looked for where one isn't there."""

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.testsets import TEST_SETS, Folders, find_folders, find_test_set


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


def test_what_is_missing_is_find_test_set(tmp_path):
    (tmp_path / "self_celeba_512_v2").mkdir()
    with pytest.raises(InterLCMError, match=r"celeba-test-daefr isn't here: no celeba_512_validation/ or"):
        find_folders(tmp_path, "celeba-test-daefr")
    with pytest.raises(InterLCMError, match="no such folder"):
        find_folders(tmp_path / "none", "lfw-test")
    with pytest.raises(InterLCMError, match="choose one of celeba-test, "):
        find_test_set("celeba")
