"""An iterable read ahead in a thread: order, bounds, errors, and that it is ended."""

import threading
import time

import pytest

from interlcm_jax.runtime.background import background


def test_items_come_in_order_and_not_too_far_ahead():
    made = []

    def items():
        for i in range(20):
            made.append(i)
            yield i

    reader = background(items(), 3)
    assert next(reader) == 0
    time.sleep(0.2)
    assert len(made) <= 1 + 3 + 1
    assert list(reader) == list(range(1, 20))


def test_errors_come_where_they_arise():
    def items():
        yield 1
        raise ValueError("no more")

    reader = background(items(), 3)
    assert next(reader) == 1
    with pytest.raises(ValueError, match="no more"):
        next(reader)


def test_leaving_early_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    reader = background(items(), 2)
    assert next(reader) == 0
    reader.close()
    assert closed.is_set()
    assert threading.active_count() == before
