"""A device that runs out of memory: an error that says what to do, in place of the compiler's."""

import contextlib
from collections.abc import Iterator

import jax

from interlcm_jax.errors import InterLCMError


@contextlib.contextmanager
def memory_explained(work: str, remedy: str) -> Iterator[None]:
    """Explains JAX's out-of-memory error.

    Args:
        work: what the memory is needed for: "to restore faces with a batch size of 4".
        remedy: what the user can do.

    Raises:
        InterLCMError: the device ran out of memory within this context.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InterLCMError(f"the device has too little memory {work}: {remedy}") from error
