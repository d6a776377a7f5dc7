"""Mutated configs of model folders: each is read, or refused in one sentence within a second."""

import copy
import json
import random
import time

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.model_folder import ModelConfig, read_config

pytestmark = pytest.mark.long

SEEDS = range(3000)
VALUES = [None, True, 0, -1, 1, 3, 1e9, 10**30, 0.5, float("nan"), float("inf"), "", "2", "x" * 9000, [], [0], [[]], {}]


def mutate(config, rng):
    """One setting, anywhere, becomes something else, another's value, or is gone."""
    place = config
    while True:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.2:
            break
        place = place[key]
    if rng.random() < 0.15 and isinstance(place, dict):
        del place[key]
    else:
        place[key] = copy.deepcopy(rng.choice(VALUES))


def refusal(folder):
    """What is said of the folder's config; None if it is read."""
    try:
        read_config(folder)
    except InterLCMError as error:
        return str(error)
    return None


@pytest.mark.parametrize("model", [ModelConfig.miniature(), ModelConfig.small()], ids=["miniature", "small"])
def test_mutated_configs(tmp_path, model):
    whole, taken = model.to_json(), 0
    for seed in SEEDS:
        rng, config = random.Random(seed), copy.deepcopy(whole)
        for _ in range(rng.choice((1, 1, 2, 5))):
            mutate(config, rng)
        (tmp_path / "config.json").write_text(json.dumps(config))
        start = time.perf_counter()
        message = refusal(tmp_path)
        assert time.perf_counter() - start < 1
        assert message is None or str(tmp_path / "config.json") in message
        taken += message is None
    # Both happen, or nothing was tried.
    assert 50 < taken < len(SEEDS) - 500


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a":' * 100_000, "\x00", '{"format": 1e999}'])
def test_other_texts(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InterLCMError, match=r"config\.json"):
        read_config(tmp_path)
