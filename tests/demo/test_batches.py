"""Faces of several callers: they share batches, and each result is the same as alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from interlcm_jax.demo.batches import SharedBatches
from interlcm_jax.errors import InterLCMError
from tests.miniature import miniature_model


def faces_of(count, seed):
    size = miniature_model().config.image_size
    return list(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8))


class Recorded:
    """The miniature model, which notes its batches, and starts on the first only when `start` is set."""

    def __init__(self):
        self.model, self.start, self.batches = miniature_model(), threading.Event(), []
        self.config, self.weights = self.model.config, self.model.weights

    def restore_all(self, faces, **options):
        assert self.start.wait(60)
        self.batches.append((len(faces), options["seed"]))
        return self.model.restore_all(faces, **options)


@pytest.fixture
def recorded():
    return Recorded()


def wait_for(condition):
    """Waits until other threads made it true."""
    for _ in range(600):
        if condition():
            return
        threading.Event().wait(0.05)
    raise TimeoutError


def test_faces_of_several_callers_share_batches_and_come_out_as_alone(recorded):
    callers = [(faces_of(2, 0), 1), (faces_of(1, 1), 1), (faces_of(1, 2), 7)]
    with SharedBatches(recorded, 4) as batches, ThreadPoolExecutor() as pool:
        futures = []
        for number, (faces, seed) in enumerate(callers):
            futures.append(pool.submit(batches.restore, faces, seed=seed))
            # The thread takes the first caller's faces at once, and is held there while the others come.
            wait_for(lambda number=number: len(batches._waiting) == number)
        futures.append(pool.submit(batches.restore, faces_of(3, 3), seed=1))
        wait_for(lambda: len(batches._waiting) == 5)
        recorded.start.set()
        results = [future.result() for future in futures]
    # The second caller and the last one have the same seed; the one between has another.
    assert recorded.batches == [(2, 1), (4, 1), (1, 7)]
    for (faces, seed), restored in zip([*callers, (faces_of(3, 3), 1)], results, strict=True):
        alone = list(miniature_model().restore_all(faces, batch_size=4, seed=seed))
        np.testing.assert_array_equal(restored, alone)


def test_a_caller_with_many_faces_lets_others_in_between(recorded):
    counts = []
    with SharedBatches(recorded, 4) as batches, ThreadPoolExecutor() as pool:
        many = pool.submit(batches.restore, faces_of(9, 0), counts.append, seed=1)
        wait_for(lambda: batches._thread.is_alive() and not batches._waiting)
        one = pool.submit(batches.restore, faces_of(1, 1), seed=7)
        wait_for(lambda: len(batches._waiting) == 1)
        recorded.start.set()
        assert (len(many.result()), len(one.result())) == (9, 1)
    assert recorded.batches == [(4, 1), (1, 7), (4, 1), (1, 1)]
    assert counts == [4, 8, 9]


def test_what_goes_wrong_is_told_to_those_who_wait_and_the_next_are_restored(recorded, monkeypatch):
    recorded.start.set()
    face = faces_of(1, 0)
    with SharedBatches(recorded, 4) as batches:
        with monkeypatch.context() as broken:
            broken.setattr(recorded, "model", None)
            with pytest.raises(AttributeError):
                batches.restore(face, seed=1)
        assert len(batches.restore(face, seed=1)) == 1
        with pytest.raises(InterLCMError, match="seed is -1"):
            batches.restore(face, seed=-1)
    with pytest.raises(InterLCMError, match="stopping"):
        batches.restore(face, seed=1)
