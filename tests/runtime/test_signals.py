"""Signals that end a command: none is lost, and the handlers that were there come back."""

import gc
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from interlcm_jax.runtime.signals import ending_signals


def in_the_collector(number):
    def collected(phase, info):
        gc.callbacks.remove(collected)
        signal.raise_signal(number)

    gc.callbacks.append(collected)
    gc.collect()


def as_another_error(number):
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        raise ValueError("while checking equality") from None


def during_an_import(number):
    (Path.cwd() / "interrupted.py").write_text(f"import signal; signal.raise_signal({int(number)}); whole = True")
    import interrupted

    assert interrupted.whole


def caught(number):
    try:
        signal.raise_signal(number)
    except BaseException:
        return


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("lost", [in_the_collector, as_another_error, during_an_import, caught])
def test_a_signal_is_not_lost(number, lost, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "interrupted", raising=False)
    monkeypatch.setattr("interlcm_jax.runtime.signals._PATIENCE", 0.05)

    def work():
        with ending_signals():
            lost(number)
            time.sleep(10)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(number) is before


def test_a_block_that_ends_all_the_same_was_interrupted():
    with pytest.raises(KeyboardInterrupt), ending_signals():
        caught(signal.SIGTERM)


def test_other_errors_stay_what_they_are():
    with pytest.raises(ValueError, match="mine"), ending_signals():
        raise ValueError("mine")


def test_other_threads_leave_signals_alone():
    seen = []

    def work():
        with ending_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
