"""Which files of a folder are taken, and what is said of the others."""

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.listing import find_images


def names(folder):
    return [path.relative_to(folder).as_posix() for path in find_images(folder).images]


def put(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_are_found_in_order_of_name_wherever_they_are(tmp_path):
    put(tmp_path, "b/0.PNG", "a.jpg", "b.webp", "10.png", "9.png", "c/d/x.HEIC", "e.jfif", "f.avif", "g.gif", "h.mpo")
    assert names(tmp_path) == [
        *("10.png", "9.png", "a.jpg", "b.webp", "b/0.PNG", "c/d/x.HEIC", "e.jfif", "f.avif", "g.gif", "h.mpo")
    ]


def test_other_files_are_named(tmp_path, caplog):
    put(tmp_path, "a.jpg", ".DS_Store", "._a.jpg.x")
    find_images(tmp_path)
    assert not caplog.text
    put(tmp_path, "film.mov", "raw.cr2", "in/notes.txt", "README")
    find_images(tmp_path)
    assert "passed over what has no image's suffix (4: " in caplog.text
    for name in ("film.mov", "raw.cr2", "in/notes.txt", "README", "1 .mov", "1 no suffix"):
        assert name in caplog.text


def test_links_are_followed_without_circles(tmp_path):
    put(tmp_path, "album/a.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
    (tmp_path / "album" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "album" / "up").symlink_to(tmp_path / "album")
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "album" / "lost").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path / "album") == ["a.jpg", "more/b.jpg", "more/deep/c.jpg"]
    (tmp_path / "link").symlink_to(tmp_path / "album")
    assert names(tmp_path / "link") == names(tmp_path / "album")


@pytest.mark.parametrize("target", [".", "album", "album/b", "album/b/deep"])
def test_links_to_what_is_searched_already_change_nothing(tmp_path, caplog, target):
    put(tmp_path, "album/a/x.png", "album/b/y.png", "album/b/deep/z.png", "elsewhere.png")
    before = names(tmp_path / "album")
    # Also one that is met first, and one that leads above the folder, to whatever else is there.
    (tmp_path / "album" / "a" / "link").symlink_to(tmp_path / target)
    assert names(tmp_path / "album") == before
    assert "album/a/link: a link passed over, as it leads to a folder that is searched already" in caplog.text


def test_a_folder_without_images_and_what_is_no_folder(tmp_path):
    with pytest.raises(InterLCMError, match=r"no images in this folder \(.apng, "):
        find_images(tmp_path)
    with pytest.raises(InterLCMError, match="absent: no such folder"):
        find_images(tmp_path / "absent")
    put(tmp_path, "file")
    with pytest.raises(InterLCMError, match="file: not a folder"):
        find_images(tmp_path / "file")
