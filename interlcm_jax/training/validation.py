"""Held-out faces, shown and scored on the way: always the same ones, with the same noise."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, UInt8

from interlcm_jax.data.sources import Source
from interlcm_jax.imaging.pixels import to_float, to_uint8
from interlcm_jax.metrics.image import psnr, ssim
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.lpips import Params as LPIPSParams
from interlcm_jax.models.lpips import lpips
from interlcm_jax.models.weights import with_values
from interlcm_jax.restoration import Networks
from interlcm_jax.runtime.compiler_options import jit
from interlcm_jax.training.sharding import batch_sharding, put_batch
from interlcm_jax.training.stage import Stage
from interlcm_jax.training.state import Weights


@dataclasses.dataclass(frozen=True)
class Validated:
    """What a validation found.

    Attributes:
        scores: means over the faces, by "psnr", "ssim" and, where it has weights, "lpips".
        lq: the faces shown, uint8.
        restored: the same, restored.
        hq: the same, as they should be.
    """

    scores: dict[str, float]
    lq: UInt8[np.ndarray, "n H W 3"]
    restored: UInt8[np.ndarray, "n H W 3"]
    hq: UInt8[np.ndarray, "n H W 3"]


class Validation:
    """A stage's pictures of held-out faces and their scores: averaged weights, 8 bit, as a user would have them.

    The faces are shared out among all devices of all processes; each process reads its own, and those that are shown.

    Args:
        stage: whose pictures; restored faces, at the last one.
        source: LQ and HQ pairs.
        count: faces that are scored, from the first; all where there are fewer.
        shown: faces that are shown, from the first.
        model: sizes, schedule, number of calls and task.
        networks: the networks, which may be abstract.
        perceptual: LPIPS' weights; None: no LPIPS.
        mesh: the run's.
    """

    def __init__(
        self,
        stage: Stage,
        source: Source,
        count: int,
        shown: int,
        model: ModelConfig,
        networks: Networks,
        perceptual: LPIPSParams | None,
        mesh: Mesh,
    ):
        self.source, self.mesh, self.perceptual = source, mesh, perceptual
        self.count = min(count, len(source))
        self.shown = min(shown, self.count)

        def run(
            weights: Weights, perceptual: LPIPSParams | None, batch: Mapping[str, Array]
        ) -> tuple[Array, dict[str, Array]]:
            lq, hq = (to_float(batch[name]) for name in ("lq", "hq"))
            shown = stage.show(with_values(networks, weights), model, lq, hq)
            pixels = to_uint8(shown)
            scores = {"psnr": psnr(pixels, batch["hq"]), "ssim": ssim(pixels, batch["hq"])}
            if perceptual is not None:
                scores["lpips"] = lpips(perceptual, to_float(pixels), hq)
            return pixels, scores

        # Scores are whole on every process, so that each can read all of them.
        everywhere, shared = NamedSharding(mesh, PartitionSpec()), batch_sharding(mesh)
        self._run = jit(run, out_shardings=(shared, everywhere))

    def __call__(self, ema: Weights, frozen: Weights) -> Validated:
        """The pictures with these weights, and their scores, whose means are taken in float64."""
        size, scores, shown = self.mesh.size, [], []
        for first in range(0, self.count, size):
            indices = [min(first + i, self.count - 1) for i in self._own(size)]
            batch = put_batch(_stacked([self.source[i] for i in indices]), self.mesh)
            restored, found = self._run({**frozen, **ema}, self.perceptual, batch)
            found = {name: np.asarray(values, np.float64) for name, values in jax.device_get(found).items()}
            scores += [
                {name: values[i] for name, values in found.items()} for i in range(min(size, self.count - first))
            ]
            if first < self.shown:
                shown += list(_whole(restored))
        means = {name: float(np.mean([face[name] for face in scores])) for name in scores[0]}
        records = _stacked([self.source[i] for i in range(self.shown)])
        return Validated(means, records["lq"], np.stack(shown[: self.shown]), records["hq"])

    def _own(self, size: int) -> range:
        """This process's share of a batch."""
        share = size // jax.process_count()
        return range(jax.process_index() * share, (jax.process_index() + 1) * share)


def _stacked(records: list[Mapping[str, np.ndarray]]) -> dict[str, UInt8[np.ndarray, "B H W 3"]]:
    return {name: np.stack([record[name] for record in records]) for name in ("lq", "hq")}


def _whole(images: Array) -> UInt8[np.ndarray, "B H W 3"]:
    """Those of all processes, in every process."""
    return np.asarray(multihost_utils.process_allgather(images, tiled=True) if jax.process_count() > 1 else images)
