"""Where a page keeps its visitors' files: a temporary folder of its own, in which no file grows old."""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# Seconds after which a file is deleted, and between two looks for such files.
AGE, INTERVAL = 3600, 60


@contextlib.contextmanager
def temporary_storage(age: float = AGE, interval: float = INTERVAL) -> Iterator[Path]:
    """A folder that is removed with the block, and whose files are deleted when they are `age` seconds old."""
    # What a visitor loads while the server stops may be written as the folder is removed.
    with tempfile.TemporaryDirectory(prefix="interlcm-demo-", ignore_cleanup_errors=True) as name:
        folder, stopped = Path(name).resolve(), threading.Event()

        def sweep() -> None:
            while not stopped.wait(interval):
                delete_old(folder, age)

        threading.Thread(target=sweep, name="old files", daemon=True).start()
        try:
            yield folder
        finally:
            stopped.set()


def delete_old(folder: Path, age: float) -> None:
    """Deletes the files below a folder that nobody wrote for `age` seconds, and inner folders left empty so long."""
    latest = time.time() - age
    # Inner folders come after what is in them.
    for path in sorted(folder.rglob("*"), reverse=True):
        # A file may go, and a folder be filled, at the same time.
        with contextlib.suppress(OSError):
            status = path.stat()
            if status.st_mtime > latest or status.st_ctime > latest:
                continue
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


def new_folder(storage: Path) -> Path:
    """A folder for one result, whose name can't be guessed."""
    return Path(tempfile.mkdtemp(dir=storage))
