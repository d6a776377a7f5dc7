"""Weights & Biases, in whose place there is a module of its calls."""

import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.log import RunLog
from interlcm_jax.training.tracker import Wandb


class Service(types.ModuleType):
    """What is asked of wandb."""

    def __init__(self):
        super().__init__("wandb")
        self.asked, self.logged, self.ended = [], [], 0

    def init(self, **asked):
        self.asked.append(asked)
        return self

    def log(self, values, *, step):
        self.logged.append((step, values))

    def finish(self):
        self.ended += 1

    @staticmethod
    def Image(pixels):
        return ("image", pixels.shape)


@pytest.fixture
def service(monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    return service


def test_it_is_told_what_the_log_is(service, tmp_path):
    pictures = np.zeros((3, 1, 4, 4, 3), np.uint8)
    folder = tmp_path / "run"
    with RunLog(folder, 3, tracker=lambda: Wandb(folder, {"seed": 7}, 0)) as log:
        for step in (1, 2, 3):
            log.add(step, {"loss": jnp.float32(step)}, np.array([0]))
        log.scalars(3, {"validation/psnr": 20.0})
        log.samples(3, *pictures)
    [asked] = service.asked
    assert (asked["name"], asked["resume"], asked["config"]) == ("run", "allow", {"seed": 7})
    [(step, line), scores, grid] = service.logged
    assert (step, line["loss"]) == (3, 3.0)
    assert line["steps_per_second"] > 0
    assert scores[0] == 3
    assert scores[1]["validation/psnr"] == 20
    assert grid == (3, {"samples": ("image", (4, 16, 3))})
    assert service.ended == 1


def test_a_run_that_goes_on_is_the_same_there_and_a_new_one_is_another(service, tmp_path):
    for start_step in (0, 5, 0):
        Wandb(tmp_path, {}, start_step)
    first, again, new = (asked["id"] for asked in service.asked)
    assert first == again != new


def test_what_is_not_there_or_does_not_start_is_one_sentence(service, tmp_path, monkeypatch):
    def refuse(**_):
        raise RuntimeError("no API key")

    service.init = refuse
    with pytest.raises(InterLCMError, match=r"wandb, which can't start \(no API key\).*wandb login"):
        Wandb(tmp_path, {}, 0)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InterLCMError, match=r"pip install 'interlcm-jax\[wandb\]'"):
        Wandb(tmp_path, {}, 0)
