"""Host work in threads around a device that is kept busy: jobs are opened, their faces restored, the jobs closed."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

Job = TypeVar("Job")
Result = TypeVar("Result")
Face = np.ndarray


@runtime_checkable
class Opened(Protocol):
    """What opening a job gives: its faces, of one size for all jobs, and whatever closing it needs."""

    faces: list[Face]


AnyOpened = TypeVar("AnyOpened", bound=Opened)


@dataclasses.dataclass
class _Waiting(Generic[Job]):
    """A job that waits for some of its faces."""

    job: Job
    opened: Opened
    restored: list[Face | None] = dataclasses.field(default_factory=list)


def overlapped(
    jobs: Iterable[Job],
    opening: Callable[[Job], AnyOpened],
    restoring: Callable[[Iterable[Face]], Iterator[Face | None]],
    closing: Callable[[Job, AnyOpened, list[Face | None]], Result],
    done: Callable[[Job, Result | Exception], None],
    workers: int,
) -> None:
    """Carries out jobs, with faces of different jobs sharing batches; one that fails costs that job only.

    The device gets faces in the order of the jobs. While it works, threads open the jobs to come and close those that
    are complete; how many lie open at a time is bounded by the number of workers and the batch.

    Args:
        jobs: of any kind.
        opening: called in a thread.
        restoring: one restored face for each face, in order; takes faces as it needs them.
        closing: called in a thread with a job's restored faces.
        done: called in this thread, once for each job, with what closing gave or what was raised on the way; what it
            raises itself ends everything.
        workers: threads.
    """
    waiting: deque[_Waiting[Job]] = deque()
    ending: deque[tuple[Job, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers)

    def close(entry: _Waiting[Job]) -> None:
        ending.append((entry.job, pool.submit(closing, entry.job, entry.opened, entry.restored)))

    def settle(most: int) -> None:
        """Reports jobs that are closed, and waits until no more than `most` are not."""
        while ending and (len(ending) > most or ending[0][1].done()):
            job, future = ending.popleft()
            done(job, _outcome(future))

    def faces() -> Iterator[Face]:
        for job, future in ahead(pool, opening, jobs, lambda: 2 * workers):
            opened = _outcome(future)
            if isinstance(opened, Exception):
                done(job, opened)
                continue
            entry = _Waiting(job, opened)
            if not opened.faces:
                close(entry)
                settle(2 * workers)
                continue
            waiting.append(entry)
            yield from opened.faces

    try:
        for face in restoring(faces()):
            waiting[0].restored.append(face)
            if len(waiting[0].restored) == len(waiting[0].opened.faces):
                close(waiting.popleft())
            settle(2 * workers)
        settle(0)
    finally:
        pool.shutdown(cancel_futures=True)


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[Job], Any], jobs: Iterable[Job], depth: Callable[[], int]
) -> Iterator[tuple[Job, Future[Any]]]:
    """Jobs in order with their work under way, `depth()` of them ahead of the one that is handed out."""
    started: deque[tuple[Job, Future[Any]]] = deque()
    for job in jobs:
        started.append((job, pool.submit(work, job)))
        while len(started) > depth():
            yield started.popleft()
    yield from started


def _outcome(future: Future[Any]) -> Any:
    try:
        return future.result()
    # Whatever is wrong with one job, the others go on, and this one's error is reported.
    except Exception as error:
        return error
