"""The subcommands of `interlcm` in one parser; a user's errors become one message and exit code 2."""

import argparse
import sys
from collections.abc import Sequence

from interlcm_jax import __version__
from interlcm_jax.cli import add, align, compile, convert, dataset, demo, download, export, parity, restore
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import resolve_paths
from interlcm_jax.runtime.platform import platform_problem


def run(argv: Sequence[str] | None) -> int:
    """Runs a subcommand.

    Returns:
        Exit code: 0 all done, 1 some inputs failed, 2 the request can't be carried out.
    """
    parser = argparse.ArgumentParser(prog="interlcm", description="Few-step blind face restoration in JAX.")
    parser.add_argument("--version", action="version", version=f"interlcm-jax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (restore, demo, download, convert, add, export, compile, parity, align, dataset):
        module.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        resolve_paths(arguments)
        return arguments.run(arguments)
    except InterLCMError as error:
        print(f"interlcm: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"interlcm: {error.filename or arguments.command}: {error.strerror or error}", file=sys.stderr)
        return 2
    except Exception:
        if (problem := platform_problem()) is None:
            raise
        print(f"interlcm: {problem}", file=sys.stderr)
        return 2
