r"""The prior of `small_prior_large`, distilled into an LCM, on a GPU.

python train.py configs/small_distillation_large.py
interlcm export runs/small/distillation_large --model-folder --license 'CC BY-NC-SA 4.0' --dtype float16 \
    -o runs/small/distillation_large/model
"""

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.degradation import DegradationConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.training.config import (
    DistillationConfig,
    OptimizerConfig,
    RunConfig,
    StartConfig,
    TrainConfig,
    ValidationConfig,
)

config = TrainConfig(
    stage="distillation",
    start=StartConfig(model="runs/small/prior_large/model", skipped_steps=7),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        degradation=DegradationConfig.release_256(),
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
        workers=5,
        prefetch=4,
    ),
    # The model restores at a guidance weight of 1 (a scale of 2).
    distillation=DistillationConfig(guidance=(0.0, 4.0), draws=8),
    optimizer=OptimizerConfig(
        learning_rate=4e-4, final_learning_rate=2e-5, decay_steps=950, b2=0.99, clip_norm=1.0, ema=0.995
    ),
    validation=ValidationConfig(path="runs/data/test", every=250, count=6, grid=6),
    run=RunConfig(folder="runs/small/distillation_large", log_every=50, checkpoint_every=250, keep=2),
    steps=950,
    batch_size=24,
    remat="none",
    seed=13,
)
