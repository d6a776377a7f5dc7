"""Stopping well: a signal becomes a flag that the training loop polls, the same in every process."""

import functools
import signal
from types import FrameType
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

from interlcm_jax.runtime.compiler_options import jit


class Interrupt:
    """While the block runs, SIGTERM and SIGINT ask the loop to stop; a second SIGINT ends the process at once.

    Entered in the main thread, as Python's signals are handled there:

        with Interrupt() as interrupt:
            for step in range(steps):
                ...
                if interrupt.requested():
                    break
    """

    def __enter__(self) -> Self:
        self._signalled = False
        self._asked: Bool[Array, ""] | None = None
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None: set outside Python, which can't set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def requested(self) -> bool:
        """Whether to stop. Called once a step, by every process, between the same two steps.

        A single process answers at once. Several agree: the flags of one call are put together on the devices, behind
        the steps already under way, and are the answer of the next call. So all stop at the same step, whichever of
        them is signalled, and the loop never waits for more than the step before.
        """
        if jax.process_count() == 1:
            return self._signalled
        # JAX's own service, `reached_preemption_sync_point`, sees no SIGINT; and Orbax asks it too, of earlier steps.
        before, self._asked = self._asked, any_process(self._signalled)
        return before is not None and bool(jax.device_get(before))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def any_process(flag: bool) -> Bool[Array, ""]:
    """Whether the flag is set in any process; not waited for."""
    mesh, any_of = _reduction()
    local = np.full(jax.local_device_count(), flag)
    return any_of(jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("all")), local))


@functools.cache
def _reduction():
    mesh = Mesh(np.array(jax.devices()), ("all",))
    return mesh, jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
