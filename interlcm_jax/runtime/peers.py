"""Processes that work as one end as one: whatever ends one of them ends all, within a minute, each with the reason.

A process that fails tells the others through JAX's coordination service. Of one that is killed JAX's heartbeats tell,
by aborting the others; here the abort becomes a sentence and an exit code of its own.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from interlcm_jax.errors import InterLCMError
from interlcm_jax.runtime import abort_filter
from interlcm_jax.runtime.platform import platform_problem

FAILED = 2
# What EX_TEMPFAIL says: start me again.
AGAIN = 75
# Seconds after which a process that gives no sign is taken for dead.
HEARTBEAT_TIMEOUT = 30
_POLL = 1.0
# Others read the reason within this time; process 0 serves it, and so ends last.
_LINGER = 4.0
_REASONS, _PLACES = "interlcm/ended", "interlcm/places"

_ending = threading.Lock()


class ApartError(InterLCMError):
    """The processes of a run don't find each other. Those that come later, or are started again, may."""


def end(command: str, error: Exception) -> int:
    """Says why the work of this process ends, to the user and to the other processes.

    Returns:
        The exit code, in a single process. One of several ends here: it can't wait for the others to end well.

    Raises:
        Exception: the error itself, in a single process that met a bug.
    """
    client, index, count = _joined()
    problem = str(error) if isinstance(error, InterLCMError) else platform_problem()
    if client is None:
        if problem is None:
            raise error
        print(f"{command}: {problem}", file=sys.stderr)
        return AGAIN if isinstance(error, ApartError) else FAILED
    if _of_jax(error):
        # Most likely another process is gone: then its reason, or JAX's word that it gives no sign, ends this one.
        time.sleep(HEARTBEAT_TIMEOUT + 10)
    with _ending:
        bug = problem is None
        problem = problem or f"{type(error).__name__}: {error}".splitlines()[0]
        client.key_value_set(f"{_REASONS}/{index}", f"{_name(index, count)} ended: {problem}", allow_overwrite=True)
        # Nobody may read it any more: the terminal is closed, or what the messages went to is gone.
        with contextlib.suppress(OSError):
            if bug:
                traceback.print_exception(error)
            print(f"{command} ({_name(index, count)}): {problem}", file=sys.stderr)
        _leave(index, FAILED)


def watch(command: str) -> None:
    """Ends this process when another one of the run does, from now on; called once the processes are joined."""
    threading.Thread(target=_end_with_others, args=[command], daemon=True).start()


def _end_with_others(command: str) -> None:
    client, index, count = _joined()
    while True:
        time.sleep(_POLL)
        try:
            reasons = client.key_value_dir_get(_REASONS)
        # The service is gone: JAX's abort follows.
        except Exception:
            return
        if reasons:
            with _ending:
                with contextlib.suppress(OSError):
                    print(f"{command} ({_name(index, count)}): {reasons[0][1]}", file=sys.stderr)
                _leave(index, FAILED)


def _leave(index: int, code: int) -> None:
    """Ends the process at once: JAX's own ending waits for the others to end well."""
    if index == 0:
        time.sleep(_LINGER)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _joined() -> tuple[Any, int, int]:
    """JAX's connection to the coordination service (None: a single process), this process' number, and how many."""
    if "jax" not in sys.modules:
        return None, 0, 1
    # JAX has no public way to it; Orbax goes the same.
    from jax._src.distributed import global_state

    return global_state.client, global_state.process_id, global_state.num_processes


def _name(index: int, count: int) -> str:
    return f"process {index} of {count} on {socket.gethostname()}"


def name(index: int | None = None) -> str:
    """What messages call this process, or the one of this number: that one's machine isn't known here."""
    _, own, count = _joined()
    return _name(own, count) if index in (None, own) else f"process {index} of {count}"


def tell_place(text: str | None) -> None:
    """Tells the other processes where this one is; None: where it should be."""
    client, index, _ = _joined()
    if client is not None:
        # What the service can't take, as it ends, nobody will miss.
        with contextlib.suppress(Exception):
            client.key_value_set(f"{_PLACES}/{index}", text or "", allow_overwrite=True)


def places() -> dict[int, str]:
    """What each process has told of its place; empty of one that has told none. None at all of a single process."""
    client, _, count = _joined()
    if client is None:
        return {}
    told: dict[int, str] = {}
    with contextlib.suppress(Exception):
        told = {int(key.rpartition("/")[2]): text for key, text in client.key_value_dir_get(_PLACES)}
    return {index: told.get(index, "") for index in range(count)}


def _of_jax(error: BaseException | None) -> bool:
    """Whether an error of the runtime is at the bottom of this one."""
    from jax.errors import JaxRuntimeError

    while error is not None:
        if isinstance(error, JaxRuntimeError):
            return True
        error = error.__cause__ or error.__context__
    return False


def soften_aborts(command: str) -> None:
    """From now on the abort of a process whose peers don't come, or are gone, is one sentence and the code `AGAIN`.

    Called before the processes are joined; `found` says that they are. JAX writes its last words past Python, and only
    a signal's handler comes after them. Standard error goes through `abort_filter`; Python's own writes don't.
    """
    if os.name != "posix":
        return
    own = os.dup(2)
    program = [sys.executable, "-I", "-S", str(Path(abort_filter.__file__))]
    between = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert between.stdin is not None
    assert between.stdout is not None
    sys.stderr = open(own, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)  # noqa: SIM115
    os.dup2(between.stdin.fileno(), 2)
    between.stdin.close()
    told = between.stdout.fileno()

    def on_abort(_: int) -> None:
        if not select.select([told], [], [], 5)[0]:
            return  # Of another cause: the abort goes on.
        gone = os.read(told, 1000).decode()
        said = f" ({name()}): {_GONE.format(gone)}" if _found.is_set() else f": {socket.gethostname()}: {APART}"
        os.write(own, f"{command}{said}\n".encode())
        os._exit(AGAIN)

    _kept.extend([between, ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)])
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _kept[-1])


def found() -> None:
    """The processes have found each other."""
    _found.set()


_found = threading.Event()
APART = "the processes don't find each other: some haven't come in time. Look at their messages, and start all again"
_GONE = "process {} gives no sign of life: killed, or its machine is gone. Start all processes again"
# Alive as long as the process.
_kept: list[object] = []
