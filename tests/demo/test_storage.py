"""The page's files: deleted when they are old, and all of them at the end."""

import os
import time

from interlcm_jax.demo.storage import delete_old, new_folder, temporary_storage


def test_old_files_are_deleted_and_new_ones_stay(tmp_path):
    for name in ("old/inner/a.png", "mixed/a.png", "mixed/new.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    # Times of change can't be set: what was written a moment ago is old enough here.
    time.sleep(0.2)
    (tmp_path / "mixed/new.png").write_text("again")
    delete_old(tmp_path, 0.1)
    assert [path.name for path in tmp_path.rglob("*.png")] == ["new.png"]
    # A folder changes as what is in it is deleted, so it goes the next time.
    for _ in range(3):
        time.sleep(0.2)
        delete_old(tmp_path, 0.1)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new.png").touch()
    # A new date alone doesn't make a file old, nor an old one: phones keep a photo's own.
    os.utime(tmp_path / "new.png", (0, 0))
    delete_old(tmp_path, 60)
    assert (tmp_path / "new.png").exists()


def test_the_storage_sweeps_itself_and_goes_with_the_block():
    with temporary_storage(age=0.1, interval=0.05) as storage:
        file = new_folder(storage) / "photo.png"
        file.touch()
        end = time.monotonic() + 20
        while file.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        (new_folder(storage) / "kept.png").touch()
    assert not storage.exists()


def test_folders_of_results_are_each_their_own(tmp_path):
    first, second = new_folder(tmp_path), new_folder(tmp_path)
    assert first != second
    assert first.parent == second.parent == tmp_path
    # Of this user alone, on a machine that others share.
    assert first.stat().st_mode & 0o077 == 0
