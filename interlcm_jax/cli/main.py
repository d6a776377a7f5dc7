"""The `interlcm` command."""

import sys
from collections.abc import Sequence

_INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, see `commands.run`."""
    try:
        # Imported here, as that takes a moment in which Ctrl-C may come too.
        from interlcm_jax.runtime.signals import ending_signals

        with ending_signals():
            from interlcm_jax.cli.commands import run

            return run(argv)
    except KeyboardInterrupt:
        print("interlcm: interrupted", file=sys.stderr)
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
