"""How processes end: one, and the program that reads JAX's last words; two are in test_train_processes.py."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from interlcm_jax.cli.main import main
from interlcm_jax.errors import InterLCMError
from interlcm_jax.runtime import abort_filter, peers

HEAD = "E1127 16:03:58.946572   21397 "
LAST = "F1127 16:03:58.947305   21415 client.h:80] Terminating: the JAX distributed service detected fatal errors."
TRACE = "*** Check failure stack trace: ***\n    @     0x7f58d2420634  absl::LogMessage::SendToLog()\n"
# As JAX 0.10 writes it: by heartbeats, by the service to others, and where the service itself is gone.
KILLED = (
    f"{HEAD}coordination_service.cc:1549] [1] Use error polling to propagate the following error to all tasks:\n1\n2\n"
    f"The tasks have crashed. Check the task logs\n{HEAD}coordination_service_agent.cc:289] Polled an error\n"
    f"{LAST}\n1\n2\nThe tasks have crashed.\n\nRPC: /xla.coordination\n{TRACE}"
)
SERVICE = (
    f"{HEAD}preemption_sync_manager.cc:147] Failed to retrieve preemption notice: Socket closed\n"
    'Additional GRPC error information\n:UNKNOWN:Error received from peer {grpc_message:"Socket closed"}.\n'
    f"{LAST} absl::Status: UNAVAILABLE\nAdditional GRPC error information\n{TRACE}"
)


@pytest.mark.parametrize(
    ("written", "passed", "told"),
    [
        ("a warning\n12\nand more", "a warning\n12\nand more", ""),
        (f"before\n{KILLED}", "before\n", "1, 2"),
        (f"before\n{SERVICE}", "before\n", "0"),
        (f"{HEAD}coordination_service_agent.cc:289] a note\nafter\n", "after\n", ""),
        (f"*** Check failure: a bug\n{TRACE}", f"*** Check failure: a bug\n{TRACE}", ""),
    ],
)
def test_last_words_of_a_lost_peer_are_dropped_and_told(written, passed, told):
    program = [sys.executable, "-I", "-S", str(Path(abort_filter.__file__))]
    run = subprocess.run(program, input=written, capture_output=True, text=True, timeout=30)
    assert (run.stderr, run.stdout) == (passed, told)


def test_an_error_of_a_single_process_is_one_sentence_and_a_bug_is_raised(capsys):
    assert peers.end("train", InterLCMError("no such file")) == 2
    assert capsys.readouterr().err == "train: no such file\n"
    with pytest.raises(KeyError):
        peers.end("train", KeyError("bug"))


WAITS_ALONE = """
import argparse, functools, sys, jax
from interlcm_jax.runtime import distributed, peers

jax.distributed.initialize = functools.partial(jax.distributed.initialize, initialization_timeout=5)
parser = argparse.ArgumentParser()
distributed.add_arguments(parser)
try:
    distributed.join(parser.parse_args(), "train")
except Exception as error:
    sys.exit(peers.end("train", error))
"""


@pytest.mark.long
@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_nobody_joins_says_so_and_is_to_be_started_again(index):
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    options = ["--coordinator", address, "--num-processes", "2", "--process-id", str(index)]
    run = subprocess.run([sys.executable, "-c", WAITS_ALONE, *options], capture_output=True, text=True, timeout=90)
    assert run.returncode == peers.AGAIN, run.stderr
    assert run.stderr.splitlines() == [f"train: {socket.gethostname()}: {peers.APART}"]


@pytest.mark.parametrize("reason", ["", "Unable to initialize backend 'cuda'\nand more"])
def test_a_platform_that_is_not_there_is_one_sentence(monkeypatch, capsys, tmp_path, reason):
    def refuse():
        raise AssertionError(reason)

    monkeypatch.setattr(jax, "devices", refuse)
    assert peers.end("train", AssertionError(reason)) == 2
    said = capsys.readouterr().err
    assert said.startswith("train: JAX_PLATFORMS is cpu, but JAX can't use it here")
    assert len(said.splitlines()) == 1

    monkeypatch.setattr("interlcm_jax.cli.align.run", lambda arguments: refuse())
    assert main(["align", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == said.replace("train:", "interlcm:")
