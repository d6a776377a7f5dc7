"""Ending a command well when it is told to: by Ctrl-C or, as batch systems do, by SIGTERM."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

# Seconds after which a signal that changed nothing is given again.
_PATIENCE = 1.0


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM raise `KeyboardInterrupt` in it, and neither is lost.

    An exception that comes up in a callback of the garbage collector, where JAX has one, or in `__del__` is dropped by
    Python, and JAX makes a `ValueError` of one that comes up where it compares. So a signal is given again as long as
    the block runs, and any error after it counts as it. In other threads than the main one nothing is done, as signals
    aren't theirs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timers: list[threading.Timer] = []

    def end(number: int, frame: FrameType | None) -> None:
        timers.append(threading.Timer(_PATIENCE, _give, [number]))
        timers[-1].daemon = True
        timers[-1].start()
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception as error:
        if timers:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in handlers.items():
            # None: set outside Python, which can't set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for timer in timers:
            timer.cancel()


def _give(number: int) -> None:
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        # To the main thread, which it wakes where it waits.
        signal.pthread_kill(threading.main_thread().ident, number)
