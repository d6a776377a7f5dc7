"""Faces of any number of callers, restored in shared batches by one thread."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Self, Unpack

import numpy as np
from jaxtyping import UInt8

from interlcm_jax.arguments import ModelOptions, check_options
from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.image import out_of_memory
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.runtime.batching import replicated_mesh

Face = UInt8[np.ndarray, "S S 3"]


@dataclasses.dataclass(eq=False)
class _Waiting:
    """A face that waits to be restored."""

    face: Face
    options: ModelOptions
    restored: Future[np.ndarray | None] = dataclasses.field(default_factory=Future)


class SharedBatches:
    """Restores faces of many callers together; a face's result is the same whatever it shares its batch with.

    Faces that wait with the same options as the one that has waited longest go into its batch, up to its size. A caller
    with many faces has one batch of them wait at a time, so that the others get their turns. Ends with the block.

    Args:
        model: the model.
        batch_size: faces at a time on each device.
    """

    def __init__(self, model: InterLCM, batch_size: int = 1):
        check_options(model.config, batch_size=batch_size)
        mesh = replicated_mesh(model.weights)
        self.size = batch_size * (1 if mesh is None else mesh.size)
        self._model, self._batch_size = model, batch_size
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._closed = False
        # A daemon, as a program that is being compiled can't be interrupted.
        self._thread = threading.Thread(target=self._work, name="shared batches", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            for one in self._waiting:
                one.restored.cancel()
            self._waiting.clear()
            self._changed.notify_all()

    def restore(
        self,
        faces: Sequence[Face],
        done: Callable[[int], object] = lambda count: None,
        **options: Unpack[ModelOptions],
    ) -> list[Face | None]:
        """Restores faces; any number of threads may call it at a time.

        Args:
            faces: uint8 RGB at the model's size.
            done: called in this thread with the number of faces that are done so far.
            **options: as in `InterLCM.restore`.

        Returns:
            The restored faces, in order; None for one for which the networks gave NaN or infinity.

        Raises:
            InterLCMError: an option isn't possible, or the device has too little memory.
        """
        check_options(self._model.config, **options)
        restored: list[Face | None] = []
        for start in range(0, len(faces), self.size):
            part = [_Waiting(face, options) for face in faces[start : start + self.size]]
            with self._changed:
                if self._closed:
                    raise InterLCMError("the server is stopping")
                self._waiting += part
                self._changed.notify_all()
            restored += [one.restored.result() for one in part]
            done(len(restored))
        return restored

    def _work(self) -> None:
        while batch := self._next_batch():
            try:
                with out_of_memory(self._batch_size):
                    restored = list(
                        self._model.restore_all(
                            [one.face for one in batch], batch_size=self._batch_size, **batch[0].options
                        )
                    )
            # Whatever is wrong with one batch is told to those who wait for it, and the next ones are restored.
            except Exception as error:
                for one in batch:
                    one.restored.set_exception(error)
                continue
            for one, face in zip(batch, restored, strict=True):
                one.restored.set_result(face)

    def _next_batch(self) -> list[_Waiting]:
        """Waits for faces, and takes as many as go together; none once this has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            alike = [one for one in self._waiting if one.options == self._waiting[0].options][: self.size]
            self._waiting = [one for one in self._waiting if one not in alike]
            return alike
