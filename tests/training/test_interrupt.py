"""Signals as a flag, in one process; two processes are in test_checkpoint_processes.py."""

import os
import signal
import subprocess
import sys

import pytest

from interlcm_jax.training.interrupt import Interrupt

BOTH = [signal.SIGTERM, signal.SIGINT]
WAITS = """
import time
from interlcm_jax.training.interrupt import Interrupt
with Interrupt() as interrupt:
    print("waits", flush=True)
    while not interrupt.requested():
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_a_flag_within_the_block(number):
    before = [signal.getsignal(each) for each in BOTH]
    with Interrupt() as interrupt:
        assert not interrupt.requested()
        os.kill(os.getpid(), number)
        assert interrupt.requested()
        assert interrupt.requested()
    assert [signal.getsignal(each) for each in BOTH] == before
    with Interrupt() as again:
        assert not again.requested()


def test_a_second_interrupt_ends_the_process_at_once():
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for says in ("waits\n", "asked\n"):
        assert process.stdout.readline() == says
        process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (-signal.SIGINT, "")
