"""Random numbers by what they are for."""

import itertools

import pytest

from interlcm_jax.data.randomness import rng_for
from interlcm_jax.errors import InterLCMError


def test_the_same_four_give_the_same_numbers_and_others_others():
    keys = list(itertools.product((0, 1), ("flip", "degradation"), (0, 1), (0, 1)))
    numbers = [rng_for(*key).integers(2**63) for key in keys]
    assert numbers == [rng_for(*key).integers(2**63) for key in keys]
    assert len(set(numbers)) == len(keys)


def test_the_numbers_stay_what_they_were():
    # A run goes on after an upgrade only if these do.
    assert rng_for(7, "degradation", 12, 3).integers(2**32, size=3).tolist() == [2715874353, 3536187437, 790262018]


@pytest.mark.parametrize(("name", "key"), [("seed", (-1, 0, 0)), ("index", (0, 2**32, 0)), ("epoch", (0, 0, -1))])
def test_numbers_out_of_range_are_named(name, key):
    seed, index, epoch = key
    with pytest.raises(InterLCMError, match=f"{name} is "):
        rng_for(seed, "flip", index, epoch)
