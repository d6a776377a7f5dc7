"""Several processes, on one machine or many, that work as one run."""

import argparse
import socket

from interlcm_jax.errors import InterLCMError
from interlcm_jax.runtime import peers

# A process that is done waits so long for the others: the first keeps the run together while any is at work.
_WEEK = 7 * 24 * 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that join processes."""
    group = parser.add_argument_group("several processes (run the same command in each)")
    group.add_argument("--distributed", action="store_true", help="join the processes of a TPU pod or a Slurm job")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="elsewhere: address of process 0")
    group.add_argument("--num-processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-id", type=int, metavar="I", help="this process's number, 0 to N-1")


def join(arguments: argparse.Namespace, command: str) -> tuple[int, int]:
    """Joins the processes if the arguments say so.

    Args:
        arguments: those of `add_arguments`.
        command: what messages begin with.

    Returns:
        Which process this is, and how many there are.

    Raises:
        InterLCMError: the options don't belong together.
        ApartError: the processes don't find each other.
    """
    explicit = {
        "coordinator_address": arguments.coordinator,
        "num_processes": arguments.num_processes,
        "process_id": arguments.process_id,
    }
    given = [value is not None for value in explicit.values()]
    if any(given) and not all(given):
        raise InterLCMError("--coordinator, --num-processes and --process-id belong together: give all three, or none")
    if not arguments.distributed and not any(given):
        return 0, 1
    if any(given) and not 0 <= arguments.process_id < arguments.num_processes:
        raise InterLCMError(f"--process-id is {arguments.process_id}, but must be from 0 to --num-processes less 1")

    import jax

    peers.soften_aborts(command)
    try:
        jax.distributed.initialize(
            **explicit, heartbeat_timeout_seconds=peers.HEARTBEAT_TIMEOUT, shutdown_timeout_seconds=_WEEK
        )
    except (RuntimeError, ValueError) as error:
        raise peers.ApartError(f"{socket.gethostname()}: {peers.APART} ({error})") from error
    peers.found()
    return jax.process_index(), jax.process_count()
