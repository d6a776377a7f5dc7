"""Datasets that are built: what is in them, what is left out, and that no TensorFlow is needed."""

import io
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from interlcm_jax.data import faces_builder
from interlcm_jax.data.faces_builder import build_faces, encoded_face
from interlcm_jax.data.images import read_face
from interlcm_jax.data.sources import Built, Folder, open_source
from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.listing import find_images
from tests.data.faces import write_faces

PROGRAM = """
import sys
from pathlib import Path
from interlcm_jax.data import faces_builder, sources
from interlcm_jax.imaging import listing
folder, out = map(Path, sys.argv[1:])
# Small shards and chunks: several of each.
faces_builder._SHARD, faces_builder._CHUNK = 4, 3
faces_builder.build_faces(folder, listing.find_images(folder).images, out, 64)
source = sources.open_source(out, 64)
assert len(source) == 11
print(*(source.name(i) for i in range(11)), sum(int(source[i]["hq"].sum()) for i in range(11)))
assert "tensorflow" not in sys.modules
"""


def test_it_is_built_and_read_without_tensorflow(tmp_path):
    write_faces(tmp_path / "faces", 10)
    write_faces(tmp_path / "faces/0", 1)
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path / "faces"), str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    *names, total = run.stdout.split()
    assert names == ["0/000.png", *(f"{i:03}.png" for i in range(10))]
    assert len(list((tmp_path / "out").glob("*array_record*"))) == 3
    source = Folder.open(tmp_path / "faces", 64)
    assert int(total) == sum(int(source[i]["hq"].sum()) for i in range(11))


def test_records_are_the_folders_images(tmp_path):
    write_faces(tmp_path / "faces", 5, suffix=".jpg")
    write_faces(tmp_path / "faces/larger", 3, size=96)
    files = find_images(tmp_path / "faces").images
    seen = []
    assert build_faces(tmp_path / "faces", files, tmp_path / "out", 64, lambda: seen.append(1)) == []
    built, folder = open_source(tmp_path / "out", 64), open_source(tmp_path / "faces", 64)
    assert (type(built), type(folder), len(seen)) == (Built, Folder, 8)
    assert len(built) == len(folder) == 8
    for index in range(8):
        np.testing.assert_array_equal(built[index]["hq"], folder[index]["hq"])
    # Where another size is asked for than was built.
    shrunk = cv2.resize(built[0]["hq"], (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(Built.open(tmp_path / "out", 32)[0]["hq"], shrunk)


def test_names_that_are_no_text_are_told_apart(tmp_path):
    for i, file in enumerate(write_faces(tmp_path / "faces", 2)):
        file.rename(file.with_name(os.fsdecode(b"%c.png" % (0xFE + i))))
    build_faces(tmp_path / "faces", find_images(tmp_path / "faces").images, tmp_path / "out", 64)
    built = open_source(tmp_path / "out", 64)
    assert [built.name(i) for i in range(2)] == ["\\udcfe.png", "\\udcff.png"]


def test_files_that_fit_are_kept_as_they_are(tmp_path):
    for suffix in (".jpg", ".png"):
        (file,) = write_faces(tmp_path, 1, suffix=suffix)
        assert encoded_face(file, 64) == file.read_bytes()
        assert encoded_face(file, 128) != file.read_bytes()


def odd_files(folder):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    image.convert("L").save(folder / "gray.jpg")
    image.convert("P").save(folder / "palette.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.save(folder / "see-through.png", transparency=tuple(pixels[0, 0].tolist()))
    image.save(folder / "lossless.webp", lossless=True)
    cv2.imwrite(str(folder / "deep.png"), rng.integers(0, 65536, (64, 64, 3), np.uint16))
    return sorted(folder.iterdir())


def test_odd_files_become_what_they_are_seen_as(tmp_path):
    files = odd_files(tmp_path)
    assert len(files) == 7
    for file in files:
        encoded = encoded_face(file, 64)
        assert encoded != file.read_bytes(), file
        with Image.open(io.BytesIO(encoded)) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            np.testing.assert_array_equal(np.asarray(image), read_face(file, 64), err_msg=file.name)


def spoil(folder):
    """Four bad images beside a good one, and a file that is none."""
    (good,) = write_faces(folder / "good", 1, suffix=".jpg")
    (folder / "a.jpg").write_bytes(good.read_bytes()[:700])
    (folder / "b.png").write_text("no image")
    Image.new("RGB", (64, 65)).save(folder / "c.png")
    Image.new("RGB", (63, 63)).save(folder / "d.png")
    (folder / "notes.txt").write_text("not taken for an image")


def test_too_many_bad_files_are_all_named_and_nothing_is_written(tmp_path):
    spoil(tmp_path / "faces")
    with pytest.raises(InterLCMError) as error:
        build_faces(tmp_path / "faces", find_images(tmp_path / "faces").images, tmp_path / "out", 64)
    message = str(error.value)
    assert "4 of 5 images" in message
    for expected in ("a.jpg: can't be read", "b.png: not an image", "c.png: 64 x 65", "d.png: 63 x 63"):
        assert expected in message
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]


@pytest.mark.parametrize(("bad", "files", "stops"), [(1, 100, True), (1, 101, False)])
def test_less_than_one_in_a_hundred_may_be_bad(tmp_path, bad, files, stops):
    (file,) = write_faces(tmp_path, 1)
    (tmp_path / "bad.png").write_bytes(b"")
    names = [tmp_path / "bad.png"] * bad + [file] * (files - bad)
    if stops:
        with pytest.raises(InterLCMError, match=r"bad\.png: not an image"):
            build_faces(tmp_path, names, tmp_path / "out", 64)
    else:
        (problem,) = build_faces(tmp_path, names, tmp_path / "out", 64)
        assert "bad.png: not an image" in problem
        assert len(Built.open(tmp_path / "out", 64)) == files - bad


def test_a_missing_or_broken_shard_is_named(tmp_path):
    build_faces(tmp_path, write_faces(tmp_path, 3), tmp_path / "out", 64)
    shard = next((tmp_path / "out").glob("*array_record*"))
    whole = shard.read_bytes()
    for content in (whole[: len(whole) // 2], None):
        shard.unlink()
        if content is not None:
            shard.write_bytes(content)
        with pytest.raises(InterLCMError, match=str(tmp_path / "out")):
            Built.open(tmp_path / "out", 64)


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    files = write_faces(tmp_path / "faces", 3)

    def interrupt(path, size):
        raise KeyboardInterrupt

    monkeypatch.setattr(faces_builder, "encoded_face", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_faces(tmp_path / "faces", files, tmp_path / "out", 64)
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]
