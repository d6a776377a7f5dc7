"""Third stage of the small model, from nothing: the diffusion prior on the latents, conditioned on tokens.

python train.py configs/small_prior.py
interlcm export runs/small/prior --model-folder --license 'CC BY-NC-SA 4.0' -o runs/small/prior/model
"""

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.degradation import DegradationConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.training.config import (
    OptimizerConfig,
    PriorConfig,
    RunConfig,
    StartConfig,
    TrainConfig,
    ValidationConfig,
)

config = TrainConfig(
    stage="prior",
    start=StartConfig(model="runs/small/token_tower/model"),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        degradation=DegradationConfig.release_256(),
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
    ),
    # A face costs twice as much to encode as to denoise.
    prior=PriorConfig(draws=4),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, final_learning_rate=2e-5, decay_steps=1300, b2=0.99, clip_norm=1.0, ema=0.998
    ),
    validation=ValidationConfig(path="runs/data/test", every=500, count=6, grid=6),
    run=RunConfig(folder="runs/small/prior", log_every=50, checkpoint_every=250, keep=2),
    steps=1000,
    batch_size=4,
    remat="none",
)
