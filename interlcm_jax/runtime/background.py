"""An iterable that works ahead of its reader, in a thread."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def background(items: Iterable[Item], ahead: int) -> Iterator[Item]:
    """The items, made in a thread of their own while the reader is busy; `close` ends it.

    Args:
        items: any iterable; what it raises is raised here.
        ahead: items that may wait for the reader.
    """
    made: queue.Queue = queue.Queue(ahead)
    stopped = threading.Event()

    def put(entry: tuple[object, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                made.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        source = iter(items)
        try:
            for item in source:
                if not put((item, None)):
                    break
            else:
                put((_END, None))
        except BaseException as error:
            put((_END, error))
        finally:
            # A generator's files are closed by the thread that reads them.
            if hasattr(source, "close"):
                source.close()

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        # A reader that is forgotten is ended wherever its last reference goes, in that thread itself too.
        if thread is not threading.current_thread():
            thread.join()
