"""The schema of a training run: everything that `configs/` sets and the command line may change."""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any, Literal

from interlcm_jax.data.loader import DataConfig
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import check_address
from interlcm_jax.training.stages import AnyStage, Restoration

# Fields that count something, and their least values.
_LEAST = {
    "steps": 1,
    "accumulate": 1,
    "optimizer.decay_steps": 1,
    "mesh.data": 0,
    "mesh.fsdp": 1,
    "mesh.slices": 0,
    "validation.every": 1,
    "validation.count": 1,
    "validation.grid": 1,
    "run.log_every": 1,
    "run.checkpoint_every": 1,
    "run.keep": 1,
}


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """Where the networks' weights come from before the first step.

    Attributes:
        model: a model folder, before all others; with its encoders, where it has them and `fresh` is off.
        fresh: the trained networks begin anew, whatever the model folder holds.
        lcm: diffusers folder or hub name of the LCM, with `unet/` and `vae/`; for a start without a model folder.
        clip: transformers folder or hub name of CLIP ViT-B/16.
        sd15: diffusers folder or hub name of the UNet (`unet/`) that a new Spatial Encoder starts as; else the LCM's.
        random: sizes of a model of random weights, for trial runs, before `lcm`: nothing is read.
        num_network_calls: calls of the networks in a restoration, 3 or 1; None: the model folder's own, else 3.
        skipped_steps: steps of the LCM's schedule that the low-quality face stands for: 0 to start from more noise;
            None: the model folder's own, else 1.
        task: what is trained; None: the model folder's own, else "restoration".
    """

    model: str | None = None
    fresh: bool = False
    lcm: str | None = None
    clip: str | None = None
    sd15: str | None = None
    random: Literal["miniature", "small", "released"] | None = None
    num_network_calls: int | None = None
    skipped_steps: int | None = None
    task: Literal["restoration", "colorization", "inpainting"] | None = None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam with a cosine schedule, for the trained networks and for the discriminator; the defaults are the release's.

    Attributes:
        learning_rate: at the first step.
        final_learning_rate: after `decay_steps`.
        decay_steps: length of the half cosine; a run may be shorter.
        b1: decay of the first moment.
        b2: decay of the second moment.
        clip_norm: gradients of a larger norm (over all weights) are scaled down to it; None: never.
        ema: decay of the weights' exponential moving average, which starts at the weights.
    """

    learning_rate: float = 5e-5
    final_learning_rate: float = 2e-5
    decay_steps: int = 150_000
    b1: float = 0.9
    b2: float = 0.99
    clip_norm: float | None = None
    ema: float = 0.997


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices, shared out: the batch over both axes, the weights over `fsdp` alone.

    Attributes:
        data: devices along `data`; 0: all that are left.
        fsdp: devices among which each large weight, its moments and its average are split.
        slices: TPU slices, or on other platforms groups of whole processes, between which the network is slower: they
            share `data` alone, so that only gradients go between them. 0: as many as there are.
    """

    data: int = 0
    fsdp: int = 1
    slices: int = 0


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """The held-out faces that are restored and scored on the way, always with the same noise.

    Attributes:
        path: a frozen test set (`interlcm dataset --frozen`): LQ and HQ pairs; None: no validation.
        every: steps between validations. Each checkpoint is validated too, but for one that a signal asks for.
        count: faces that are scored, from the first.
        grid: faces that are shown, from the first.
    """

    path: str | None = None
    every: int = 500
    count: int = 64
    grid: int = 8


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What a run keeps and shows.

    Attributes:
        folder: of the run: checkpoints, log, pictures. A run that is in it already is gone on with.
        log_every: steps between lines of the log.
        checkpoint_every: steps between checkpoints.
        keep: checkpoints kept, the newest; besides them the best by PSNR, where there is validation.
        profile_from: first step of a profile, None for no profile.
        profile_steps: steps it covers.
        exit_code_on_preemption: of a run that SIGTERM or Ctrl-C stops, saved, for schedulers that start again on it.
        tracker: where else the log goes; "wandb" needs the extra of this name.
    """

    folder: str = "runs/interlcm"
    log_every: int = 50
    checkpoint_every: int = 500
    keep: int = 3
    profile_from: int | None = None
    profile_steps: int = 3
    exit_code_on_preemption: int = 0
    tracker: Literal["wandb"] | None = None


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a configuration as JSON, by full names like "optimizer.learning_rate"; a list is one field."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": each for inner, each in flat(value).items()}
        else:
            found[name] = value
    return found


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A run.

    Attributes:
        stage: what is trained and on which losses, one of `training.stages`; a config file chooses it.
        start, data: the model; the training faces.
        optimizer, mesh, run, validation: how weights move; how devices are shared out; what is kept; held-out faces.
        steps: of the whole run.
        batch_size: images a step, over all devices.
        accumulate: parts that a step's batch is taken in, one after the other, to save memory.
        dtype: of the computation; weights that are trained are kept in float32, frozen ones in this.
        remat: the backward pass computes the blocks of every network again instead of keeping what they gave.
        seed: of everything random.
    """

    stage: AnyStage = dataclasses.field(default_factory=Restoration)
    start: StartConfig = dataclasses.field(default_factory=StartConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    validation: ValidationConfig = dataclasses.field(default_factory=ValidationConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    steps: int = 15_000
    batch_size: int = 16
    accumulate: int = 1
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: bool = True
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields, as a checkpoint keeps them; the stage with its name."""
        fields = dataclasses.asdict(self)
        return {**fields, "stage": {"name": type(self.stage).__name__, **fields["stage"]}}

    def check(self) -> None:
        """Checks what no type says.

        Raises:
            InterLCMError: names every field that is wrong, and what it must be.
        """
        optimizer, size, parts = self.optimizer, self.batch_size, self.accumulate
        first, last = optimizer.learning_rate, optimizer.final_learning_rate
        demands = {
            "batch_size": (size >= 1 and size % max(parts, 1) == 0, f"a multiple of accumulate, {parts}"),
            "run.exit_code_on_preemption": (0 <= self.run.exit_code_on_preemption <= 255, "from 0 to 255"),
            "seed": (0 <= self.seed < 2**32, "from 0 to 4294967295"),
            "optimizer.learning_rate": (first > 0, "above 0"),
            "optimizer.final_learning_rate": (0 <= last <= first, "from 0 to optimizer.learning_rate"),
            "optimizer.ema": (0 <= optimizer.ema < 1, "from 0 to below 1"),
            "optimizer.clip_norm": (optimizer.clip_norm is None or optimizer.clip_norm > 0, "above 0, or None"),
        }
        value = {name: operator.attrgetter(name)(self) for name in (*_LEAST, *demands)}
        demands = {name: (value[name] >= least, f"at least {least}") for name, least in _LEAST.items()} | demands
        wrong = [f"{name} is {value[name]}, but must be {must}" for name, (right, must) in demands.items() if not right]
        if not (self.start.model or self.start.random or self.start.lcm):
            wrong.append("of start.model, start.random and start.lcm none is given, but one must be")
        if self.start.lcm and not self.start.clip:
            wrong.append("start.lcm is given, and so start.clip must be")
        for name, value in flat(self.to_json()).items():
            if isinstance(value, str):
                check_address(name, value)
        if wrong:
            raise InterLCMError("the configuration doesn't fit: " + "; ".join(wrong))
