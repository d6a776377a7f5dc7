"""Random numbers as a function of what they are for, so that nothing random needs to be remembered."""

import zlib

import numpy as np

from interlcm_jax.errors import InterLCMError


def rng_for(seed: int, stream: str, index: int, epoch: int) -> np.random.Generator:
    """A generator of its own for each purpose, record and epoch; the same four give the same numbers everywhere.

    Args:
        seed: the run's, from 0 to 2³² - 1.
        stream: what the numbers are for, such as "flip".
        index: the record, from 0 to 2³² - 1.
        epoch: from 0 to 2³² - 1.

    Raises:
        InterLCMError: a number is out of range.
    """
    for name, value in (("seed", seed), ("index", index), ("epoch", epoch)):
        if not 0 <= value < 2**32:
            raise InterLCMError(f"{name} is {value}, but must be an integer from 0 to {2**32 - 1}")
    # A word each: longer numbers would make two lists of words the same.
    words = (seed, zlib.crc32(stream.encode()), index, epoch)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
