"""A program between a process and its standard error, run by `peers`: it passes everything on but JAX's last words.

Where another process of a run is gone, JAX aborts this one with a page of addresses. The page is dropped, and what it
was about goes to standard output: the number of the process that is gone.
"""

import os
import re
import signal

_LAST_WORDS = b"JAX distributed service detected fatal errors"
# What JAX logs of the matter before, and the lines that such a message goes on with: numbers of processes are some.
_BEFORE = re.compile(rb"[IWE]\d{4} .*(coordination_service|preemption_sync_manager)")
_MORE = re.compile(rb"\d+$|The tasks have crashed|Additional GRPC error|:UNKNOWN:")


def main() -> None:
    """Passes lines on until there are no more."""
    # It ends after the process that it serves, whatever signals reach both.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    before = last = told = False
    gone: set[bytes] = set()
    with open(0, "rb") as lines:
        for line in lines:
            last = last or _LAST_WORDS in line
            before = bool(_BEFORE.match(line) or (before and _MORE.match(line)))
            if line.strip().isdigit() and (before or last):
                gone.add(line.strip())
            elif last and not told and _LAST_WORDS not in line:
                # None is named where process 0 is gone, which would name them.
                os.write(1, b", ".join(sorted(gone, key=int)) or b"0")
                told = True
            if not (before or last):
                os.write(2, line)


if __name__ == "__main__":
    main()
