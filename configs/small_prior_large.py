"""The diffusion prior, trained further in large batches, on a GPU.

python train.py configs/small_prior_large.py
interlcm export runs/small/prior_large --model-folder --license 'CC BY-NC-SA 4.0' -o runs/small/prior_large/model
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
    # The LCM that the first prior became goes on as a prior.
    start=StartConfig(model="runs/small/3step_sharpen_mix/model", skipped_steps=7),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        degradation=DegradationConfig.release_256(),
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
        workers=5,
        prefetch=4,
    ),
    # The latents keep the scale that all stages before were trained at.
    prior=PriorConfig(draws=8, scale_latents=False),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, final_learning_rate=5e-5, decay_steps=1975, b2=0.99, clip_norm=1.0, ema=0.998
    ),
    validation=ValidationConfig(path="runs/data/test", every=500, count=6, grid=6),
    run=RunConfig(folder="runs/small/prior_large", log_every=50, checkpoint_every=250, keep=2),
    steps=1975,
    batch_size=24,
    remat="none",
    seed=11,
)
