"""Jobs around a busy device: order, sharing of batches, bounded look-ahead, and what one bad job costs."""

import dataclasses
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from interlcm_jax.runtime.overlap import overlapped


@dataclasses.dataclass
class Opened:
    faces: list


class Run:
    """Jobs that are lists of faces (numbers); restoring doubles them in batches of three."""

    def __init__(self, jobs, workers=2, **replaced):
        self.events, self.outcomes, self.batches = [], {}, []
        self.lock = threading.Lock()
        parts = {"opening": self.open, "restoring": self.restore, "closing": self.close, "done": self.done} | replaced
        overlapped(jobs, **parts, workers=workers)

    def open(self, job):
        if "bad" in job:
            raise ValueError("can't be opened")
        return Opened([face for face in job if not isinstance(face, str)])

    def restore(self, faces):
        source = iter(faces)
        while batch := list(itertools.islice(source, 3)):
            self.batches.append(batch)
            yield from [2 * face for face in batch]

    def close(self, job, opened, restored):
        if "unwritable" in job:
            raise OSError("can't be written")
        return restored

    def done(self, job, outcome):
        self.outcomes[job] = outcome


def test_each_job_gets_its_faces_and_jobs_share_batches():
    run = Run([(1,), (2, 3, 4), (), (5,), (6, 7)])
    assert run.outcomes == {(1,): [2], (2, 3, 4): [4, 6, 8], (): [], (5,): [10], (6, 7): [12, 14]}
    assert run.batches == [[1, 2, 3], [4, 5, 6], [7]]


def test_a_bad_job_costs_that_job_only():
    run = Run([(1,), ("bad", 1), (2, "unwritable"), ("unwritable",), ("bad", 2), (3, 4)])
    assert run.outcomes[(1,)] == [2]
    assert run.outcomes[(3, 4)] == [6, 8]
    assert [str(run.outcomes[job]) for job in run.outcomes if "bad" in job] == ["can't be opened"] * 2
    assert [type(run.outcomes[job]) for job in run.outcomes if "unwritable" in job] == [OSError] * 2
    assert len(run.outcomes) == 6


def test_nothing_to_do():
    assert Run([]).outcomes == {}
    assert Run([(), ()]).batches == []


def test_what_done_raises_ends_everything():
    closed = []

    def close(job, opened, restored):
        closed.append(job)
        raise OSError("disk full")

    def done(job, outcome):
        raise outcome

    with pytest.raises(OSError, match="disk full"):
        Run([(i,) for i in range(1000)], closing=close, done=done)
    assert len(closed) < 20


def test_what_restoring_raises_ends_everything():
    def restore(faces):
        yield next(iter(faces))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run([(i,) for i in range(1000)], restoring=restore)


def test_what_waits_to_be_opened_is_not_when_all_ends(monkeypatch):
    opened, ending = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, **options):
            super().shutdown(**options | {"wait": False})
            ending.set()
            super().shutdown()

    def opening(job):
        opened.append(job)
        assert job == 0 or ending.wait(10)
        return Opened([job])

    def restore(faces):
        yield next(iter(faces))
        raise KeyboardInterrupt

    monkeypatch.setattr("interlcm_jax.runtime.overlap.ThreadPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        Run(range(100), workers=1, opening=opening, restoring=restore)
    assert opened in ([0], [0, 1])


def test_jobs_without_faces_are_reported_on_the_way():
    reported, late = [], []

    def opening(job):
        late.append(job - len(reported))
        return Opened([])

    Run(range(100), 1, opening=opening, done=lambda job, outcome: reported.append(job))
    assert reported == list(range(100))
    # Read ahead, and waiting to be closed.
    assert max(late) <= 2 + 2 + 1


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_lies_open_than_workers_and_batch_need(workers):
    lock, open_now, most = threading.Lock(), [0], [0]

    def opening(job):
        with lock:
            open_now[0] += 1
            most[0] = max(most[0], open_now[0])
        return Opened([job])

    def closing(job, opened, restored):
        with lock:
            open_now[0] -= 1

    Run(range(200), workers, opening=opening, closing=closing)
    assert open_now == [0]
    # Read ahead, in a batch of three, and waiting to be written.
    assert most[0] <= 2 * workers + 1 + 3 + 2 * workers + workers


def test_host_work_runs_while_the_device_does():
    opened, closed = [threading.Event() for _ in range(4)], [threading.Event() for _ in range(4)]

    def opening(job):
        opened[job].set()
        return Opened([job])

    def restore(faces):
        for face in faces:
            # While a face is restored, the next job is opened and the one before is closed.
            assert opened[min(face + 1, 3)].wait(10)
            assert face < 2 or closed[face - 2].wait(10)
            yield face

    Run(range(4), opening=opening, closing=lambda job, *_: closed[job].set(), restoring=restore)
    assert all(event.is_set() for event in closed)
