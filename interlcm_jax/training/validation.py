"""Held-out faces, shown and scored on the way: always the same ones, with the same noise."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
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
from interlcm_jax.runtime.batching import pad
from interlcm_jax.runtime.compiler_options import jit
from interlcm_jax.training.sharding import put_batch
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

        def run(weights: Weights, perceptual: LPIPSParams | None, batch: Mapping[str, Array]) -> dict[str, Array]:
            lq, hq = (to_float(batch[name]) for name in ("lq", "hq"))
            shown = stage.show(with_values(networks, weights), model, lq, hq)
            pixels = to_uint8(shown)
            scores = {"psnr": psnr(pixels, batch["hq"]), "ssim": ssim(pixels, batch["hq"])}
            if perceptual is not None:
                scores["lpips"] = lpips(perceptual, to_float(pixels), hq)
            return {"restored": pixels, **scores}

        # Whole on every process, so that each can read all of it.
        self._run = jit(run, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, ema: Weights, frozen: Weights) -> Validated:
        """The pictures with these weights, and their scores."""
        size, scores, shown = self.mesh.size, [], []
        for first in range(0, self.count, size):
            records = [self.source[i] for i in range(first, min(first + size, self.count))]
            batch = {name: np.stack([record[name] for record in records]) for name in ("lq", "hq")}
            own = {name: self._own(pad(images, size)) for name, images in batch.items()}
            results = jax.device_get(self._run({**frozen, **ema}, self.perceptual, put_batch(own, self.mesh)))
            restored = results.pop("restored")
            scores += [{name: float(values[i]) for name, values in results.items()} for i in range(len(records))]
            shown += zip(batch["lq"], restored, batch["hq"], strict=False)
        means = {name: float(np.mean([face[name] for face in scores])) for name in scores[0]}
        return Validated(means, *(np.stack(images) for images in zip(*shown[: self.shown], strict=True)))

    def _own(self, images: UInt8[np.ndarray, "B H W 3"]) -> UInt8[np.ndarray, "b H W 3"]:
        """This process's share."""
        share = len(images) // jax.process_count()
        return images[jax.process_index() * share :][:share]
