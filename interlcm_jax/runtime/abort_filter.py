"""A program between a process and its standard error, run by `peers`: it passes everything on but JAX's last words.

Where another process of a run is gone, JAX aborts this one with a page of addresses. The page is dropped, and what it
was about goes to standard output: the number of the process that is gone.
"""

import os
import re
import signal

_LAST_WORDS = b"JAX distributed service detected fatal errors"
# Written right before them, of the same matter.
_BEFORE = b"Polled an error from coordination service"
_TASK = re.compile(rb"task:(\d+)")


def main() -> None:
    """Passes lines on until there are no more."""
    # It ends after the process that it serves, whatever signals reach both.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    said, gone = False, b"0"
    with open(0, "rb") as lines:
        for line in lines:
            if (of_peers := _BEFORE in line or _LAST_WORDS in line) and (found := _TASK.search(line)):
                gone = found[1]
            if _LAST_WORDS in line:
                said = True
                os.write(1, gone)
            if not (said or of_peers):
                os.write(2, line)


if __name__ == "__main__":
    main()
