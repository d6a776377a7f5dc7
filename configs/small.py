"""The small model, which the package carries, from nothing: all its stages in order, on faces of 256 x 256 pixels.

    interlcm dataset FACES -o runs/data/train --size 256 --exclude-last 64
    interlcm dataset FACES -o runs/data/test --size 256 --only-last 64 --frozen --degradation release-256
    python train.py configs/small.py

FACES is a folder of aligned faces. Each stage starts from the model that the one before exported, in
runs/small/STAGE/model; the same command goes on where it was stopped, and `--only STAGE` trains one stage. Changed
fields (`--batch-size 2`) hold for every stage that is run; a field that one of them doesn't have is an error. No loss
needs a download.

Hardware: one GPU, at 24 images a step; two CPU cores run it too, but far more slowly. The weights in the package were
made in other steps, which their model card has, so its numbers aren't this recipe's.
"""

import dataclasses

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.degradation import DegradationConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.data.photometric import PhotometricConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.training.config import OptimizerConfig, RunConfig, StartConfig, TrainConfig, ValidationConfig
from interlcm_jax.training.losses import LossConfig
from interlcm_jax.training.stages import (
    AnyStage,
    Autoencoder,
    Distillation,
    ImageEncoder,
    Prior,
    Restoration,
    WarmUp,
)

FOLDER = "runs/small"
DATA = DataConfig(
    path="runs/data/train",
    image_size=256,
    degradation=dataclasses.replace(DegradationConfig.release_256(), mild_probability=0.25),
    warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
    photometric=PhotometricConfig(probability=0.6, gray=0.4, gamma=0.7, contrast=0.5, shade=0.8, tint=12.0),
    workers=4,
    prefetch=4,
)
# Patches of 34 pixels: larger ones leave a pattern at single frequencies.
DISCRIMINATOR = DiscriminatorConfig(base_channels=64, num_layers=2)
OPTIMIZER = OptimizerConfig(final_learning_rate=2e-5, clip_norm=1.0, ema=0.998)


def run(name: str, stage: AnyStage, start: StartConfig, steps: int, learning_rate: float, **fields) -> TrainConfig:
    """A stage's run, with what all of them share."""
    optimizer = dataclasses.replace(OPTIMIZER, learning_rate=learning_rate, decay_steps=steps)
    shared = {
        "data": DATA,
        "optimizer": dataclasses.replace(optimizer, **fields.pop("optimizer", {})),
        "validation": ValidationConfig(path="runs/data/test", count=16, grid=6),
        "run": RunConfig(folder=f"{FOLDER}/{name}", keep=2),
        "batch_size": 24,
        "remat": False,
    }
    return TrainConfig(stage=stage, start=start, steps=steps, **{**shared, **fields})


def after(name: str, **fields) -> StartConfig:
    """A start from the model that a stage exported."""
    return StartConfig(model=f"{FOLDER}/{name}/model", **fields)


stages = {
    "autoencoder": run(
        "autoencoder",
        Autoencoder(
            losses=LossConfig(
                color=2.0,
                texture=3.0,
                ssim=1.0,
                lpips=0.0,
                onet=0.1,
                adversarial=0.03,
                adversarial_from=4000,
                discriminator=DISCRIMINATOR,
            ),
            divergence=1e-5,
        ),
        StartConfig(random="small"),
        steps=8000,
        learning_rate=5e-4,
        optimizer={"b1": 0.5},
        # Faces alone have few colors.
        data=dataclasses.replace(DATA, channel_permutation=0.1),
    ),
    "image_encoder": run("image_encoder", ImageEncoder(), after("autoencoder"), steps=4000, learning_rate=1e-3),
    "prior": run("prior", Prior(draws=8), after("image_encoder"), steps=2000, learning_rate=1e-3),
    "distillation": run(
        "distillation",
        # The model restores at a guidance weight of 1 (a scale of 2).
        Distillation(guidance=(0.0, 4.0), draws=8),
        after("prior"),
        steps=1000,
        learning_rate=4e-4,
        optimizer={"ema": 0.995},
    ),
    "warm_up": run(
        "warm_up",
        WarmUp(),
        after("distillation", fresh=True),
        steps=2000,
        learning_rate=1e-3,
        optimizer={"final_learning_rate": 1e-4},
        dtype="float32",
    ),
    "3step": run(
        "3step",
        Restoration(
            losses=LossConfig(
                color=0.5,
                texture=4.0,
                ssim=0.8,
                lpips=0.0,
                onet=0.07,
                adversarial=0.03,
                adversarial_from=4500,
                discriminator=DISCRIMINATOR,
            )
        ),
        after("warm_up"),
        steps=6000,
        learning_rate=4e-4,
        dtype="float32",
    ),
    # Encoders that know three calls learn one sooner than new ones.
    "1step": run(
        "1step",
        Restoration(losses=LossConfig(color=0.5, texture=4.0, ssim=0.5, lpips=0.0, onet=0.05, adversarial=0.0)),
        after("3step", num_network_calls=1, skipped_steps=3),
        steps=1000,
        learning_rate=3e-4,
        optimizer={"final_learning_rate": 3e-5, "ema": 0.99},
        dtype="float32",
    ),
}
