"""Files of two folders, matched by name."""

import unicodedata

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.pairs import images_by_name, match
from tests.evaluation.pictures import picture, save


def test_files_are_matched_by_name(tmp_path):
    save(tmp_path / "a" / "in" / "x_00.png", picture(0))
    save(tmp_path / "a" / "y.jpg", picture(1))
    save(tmp_path / "b" / "in" / "x.bmp", picture(0))
    restored, problems = images_by_name(tmp_path / "a", "_00")
    assert list(restored) == ["in/x"]
    assert "y.jpg: the name doesn't end in _00" in problems[0]
    pairs, _ = match(restored, images_by_name(tmp_path / "b")[0])
    assert [pair.name for pair in pairs] == ["in/x"]
    with pytest.raises(InterLCMError, match="no image has a reference of the same name"):
        match(images_by_name(tmp_path / "a")[0], {"other": tmp_path / "other.png"})
    save(tmp_path / "a" / "y.png", picture(1))
    with pytest.raises(InterLCMError, match=r"y\.png: the same name as y\.jpg"):
        images_by_name(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "empty", "no images"), (tmp_path / "none", "no such folder")):
        with pytest.raises(InterLCMError, match=words):
            images_by_name(folder)


def test_accents_match_however_they_are_stored(tmp_path):
    name = "Zoë/José"
    save(tmp_path / "mac" / unicodedata.normalize("NFD", f"{name}é.png"), picture(0))
    save(tmp_path / "linux" / unicodedata.normalize("NFC", f"{name}.png"), picture(0))
    mac, linux = images_by_name(tmp_path / "mac", "é")[0], images_by_name(tmp_path / "linux")[0]
    [pair] = match(mac, linux)[0]
    assert pair.name == unicodedata.normalize("NFC", name)
    assert pair.restored.exists()


def test_an_ending_is_taken_off_where_names_have_it(tmp_path):
    for folder, ending in (("codeformer", "_00"), ("ours", "")):
        for i in range(2):
            save(tmp_path / folder / f"{i}{ending}.png", picture(i))
        files, problems = images_by_name(tmp_path / folder, "_00")
        assert (list(files), problems) == (["0", "1"], [])
