"""Ending a command well when it is told to: by Ctrl-C or, as batch systems do, by SIGTERM."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

# Seconds after which a signal is given again that changed nothing, or that came during an import.
_PATIENCE, _IMPORT = 1.0, 0.1


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM raise `KeyboardInterrupt` in it, and neither is lost.

    Python drops an exception that comes up in a callback of the garbage collector, where JAX has one, or in `__del__`;
    JAX makes a `ValueError` of one that comes up where it compares, and ends in a crash where its libraries start. So
    imports aren't disturbed, a signal is given again as long as the block runs, and whatever the block ends in after
    it, an error or a result, counts as it. In other threads than the main one nothing is done, as signals aren't
    theirs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timers: list[threading.Timer] = []

    def end(number: int, frame: FrameType | None) -> None:
        imports = _is_importing(frame)
        timers.append(threading.Timer(_IMPORT if imports else _PATIENCE, _give, [number]))
        timers[-1].daemon = True
        timers[-1].start()
        if not imports:
            raise KeyboardInterrupt

    def report(dropped: "sys.UnraisableHookArgs") -> None:
        if not (timers and dropped.exc_type is KeyboardInterrupt):
            hook(dropped)

    handlers = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, report
    try:
        yield
    except Exception as error:
        if timers:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            # None: set outside Python, which can't set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for timer in timers:
            timer.cancel()
    if timers:
        raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _give(number: int) -> None:
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        # To the main thread, which it wakes where it waits.
        signal.pthread_kill(threading.main_thread().ident, number)
