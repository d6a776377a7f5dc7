"""What goes wrong with buckets, as errors of a file system, each in one sentence."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import gcsfs.retry
from google.auth.exceptions import GoogleAuthError

from interlcm_jax.errors import InterLCMError

PATIENCE_VARIABLE = "INTERLCM_BUCKET_PATIENCE"
# Seconds for which a request that fails is made again.
PATIENCE = 300.0


class BucketError(InterLCMError, OSError):
    """A bucket doesn't do what it is asked; says why, as a file system's errors do."""

    def __init__(self, number: int, reason: str, path: str):
        OSError.__init__(self, number, reason, path)

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class AbsentError(BucketError, FileNotFoundError):
    """There is no such object or folder."""


def patience() -> float:
    """Seconds for which failing requests are made again: 300, or what `INTERLCM_BUCKET_PATIENCE` says."""
    return float(os.environ.get(PATIENCE_VARIABLE) or PATIENCE)


@contextlib.contextmanager
def explained(path: Path, writing: bool = False) -> Iterator[None]:
    """What the libraries raise, which is of many kinds, as a `BucketError`."""
    try:
        yield
    except BucketError:
        raise
    except FileNotFoundError as error:
        bucket = path.parts[2] if len(path.parts) > 2 else ""
        reason = f"there is no bucket {bucket}, or it isn't yours" if writing else "no such file or folder"
        raise AbsentError(errno.ENOENT, reason, str(path)) from error
    except Exception as error:
        raise BucketError(*_reason(error), str(path)) from error


def why(error: BaseException) -> str:
    """What an error that comes from a bucket says, and what to do."""
    return error.strerror if isinstance(error, BucketError) else _reason(error)[1]


def _reason(error: BaseException) -> tuple[int, str]:
    """An error number of the system's, and what to say and do."""
    text, name = re.sub(r"^Forbidden: \S+ ?", "Forbidden: ", brief(error)), type(error).__name__
    code = getattr(error, "code", None)
    if isinstance(error, GoogleAuthError) or "Credentials" in name or code in (401, "401") or "Anonymous" in text:
        return errno.EACCES, f"no login for this bucket ({text}); {_LOGINS}"
    if isinstance(error, PermissionError) or text.startswith("Forbidden"):
        return errno.EACCES, f"no permission ({text}); the account must be allowed to list, read and write objects"
    silent = isinstance(error, TimeoutError | ConnectionError) or getattr(error, "errno", None) == errno.EBUSY
    if silent or gcsfs.retry.is_retriable(error):
        return errno.EIO, f"no answer in {patience():.0f} s ({text}); when the bucket is back, the same command goes on"
    return errno.EIO, text


_LOGINS = "for gs:// `gcloud auth application-default login` makes one, for s3:// `aws configure`"


def brief(error: BaseException) -> str:
    """The first lines of an error, as one."""
    lines = " ".join(filter(None, map(str.strip, str(error).splitlines()))) or type(error).__name__
    return lines[:200]
