"""Folders, pairs and frozen test sets as sources."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from interlcm_jax.data.degradation import DegradationConfig, degrade, draw
from interlcm_jax.data.faces_builder import build_faces
from interlcm_jax.data.frozen import freeze
from interlcm_jax.data.images import part
from interlcm_jax.data.randomness import rng_for
from interlcm_jax.data.sources import Built, Folder, Pairs, open_source
from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import read_image
from tests.data.faces import write_faces


def test_what_is_no_folder(tmp_path):
    with pytest.raises(InterLCMError, match="absent: no such folder"):
        open_source(tmp_path / "absent", 64)
    (tmp_path / "file").touch()
    with pytest.raises(InterLCMError, match="file: not a folder"):
        open_source(tmp_path / "file", 64)


def test_parts_share_out_the_faces(tmp_path):
    files = write_faces(tmp_path, 5)
    assert part(files, exclude_last=2) + part(files, only_last=2) == part(files) == files
    for options in ({"exclude_last": 5}, {"exclude_last": 0}, {"only_last": 6}, {"only_last": -1}):
        with pytest.raises(InterLCMError, match="of 5 images it must be from 1 to"):
            part(files, **options)


def test_a_folder_is_checked_when_it_is_opened(tmp_path):
    write_faces(tmp_path, 2)
    Image.new("RGB", (64, 80)).save(tmp_path / "tall.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "tiny.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(InterLCMError, match="3 images that can't be trained on") as error:
        Folder.open(tmp_path, 64)
    for name in ("tall.png: 64 x 80", "tiny.png: 32 x 32", "text.png: can't be read"):
        assert name in str(error.value)


def pairs(folder, names=("a", "inner/b")):
    for kind, level in (("lq", 10), ("hq", 200)):
        for number, name in enumerate(names):
            path = folder / kind / f"{name}{'.png' if kind == 'hq' else '.webp'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (level + number,) * 3).save(path, lossless=True)


def test_pairs_are_matched_by_name(tmp_path):
    pairs(tmp_path)
    source = open_source(tmp_path, 64, paired=True)
    assert source.names == ("a", "inner/b")
    assert [(record["lq"][0, 0, 0], record["hq"][0, 0, 0]) for record in source] == [(10, 200), (11, 201)]


def test_pairs_that_dont_match_are_all_named(tmp_path):
    pairs(tmp_path, ("a", "b", "c"))
    (tmp_path / "lq/a.webp").unlink()
    (tmp_path / "hq/b.png").unlink()
    with pytest.raises(InterLCMError, match="2 images without a partner") as error:
        Pairs.open(tmp_path, 64)
    assert "hq/a.png" in str(error.value)
    assert "lq/b.webp" in str(error.value)
    assert "c.png" not in str(error.value)


def test_pairs_of_different_sizes_are_named(tmp_path):
    pairs(tmp_path)
    Image.new("RGB", (80, 80)).save(tmp_path / "hq/a.png")
    with pytest.raises(InterLCMError, match=r"lq/a\.webp \(64 pixels\) and .*hq/a\.png \(80 pixels\)"):
        Pairs.open(tmp_path, 64)


def test_two_images_of_one_name_are_named(tmp_path):
    pairs(tmp_path)
    Image.new("RGB", (64, 64)).save(tmp_path / "hq/a.bmp")
    with pytest.raises(InterLCMError, match=r"a\.png: the same name as a\.bmp"):
        Pairs.open(tmp_path, 64)


def test_sources_can_be_sent_to_other_processes(tmp_path):
    files = write_faces(tmp_path / "faces", 2)
    build_faces(tmp_path / "faces", files, tmp_path / "built", 64)
    pairs(tmp_path / "pairs")
    for source in (
        Folder.open(tmp_path / "faces", 64),
        Built.open(tmp_path / "built", 64),
        Pairs.open(tmp_path / "pairs", 64),
    ):
        sent = pickle.loads(pickle.dumps(source))
        assert len(sent) == 2
        for name, image in source[1].items():
            np.testing.assert_array_equal(sent[1][name], image)


def test_a_frozen_set_is_the_same_each_time_and_read_as_pairs(tmp_path):
    folder, config = tmp_path / "faces", DegradationConfig.harsh()
    files = write_faces(folder, 3, suffix=".jpg") + write_faces(folder / "inner", 1, size=96)
    for name in ("one", "two"):
        freeze(folder, files, tmp_path / name, 64, config, seed=5)
    one, two = (Pairs.open(tmp_path / name, 64) for name in ("one", "two"))
    assert one.names == ("000", "001", "002", "inner/000")
    for index, file in enumerate(files):
        hq = Folder((file,), 64)[0]["hq"]
        np.testing.assert_array_equal(one[index]["hq"], hq)
        lq = degrade(hq, draw(config, rng_for(5, "frozen", index, 0)))
        np.testing.assert_array_equal(one[index]["lq"], lq)
        assert one.files[index][0].read_bytes() == two.files[index][0].read_bytes()
    about = json.loads((tmp_path / "one/frozen.json").read_text())
    assert (about["seed"], about["degradation"]["jpeg_quality"]) == (5, [30, 80])
    np.testing.assert_array_equal(read_image(tmp_path / "one/hq/000.png"), read_image(files[0]))


def test_a_frozen_set_with_a_bad_or_doubled_face_is_not_written(tmp_path):
    folder = tmp_path / "faces"
    files = write_faces(folder, 2)
    doubled = write_faces(folder, 1, suffix=".jpg")
    with pytest.raises(InterLCMError, match=r"pairs of the same name: .*000\.png, .*000\.jpg"):
        freeze(folder, files + doubled, tmp_path / "out", 64, DegradationConfig(), 0)
    files[1].write_bytes(files[1].read_bytes()[:300])
    with pytest.raises(InterLCMError, match=r"001\.png: can't be read"):
        freeze(folder, files, tmp_path / "out", 64, DegradationConfig(), 0)
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]
