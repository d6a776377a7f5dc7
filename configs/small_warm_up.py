"""Fifth stage of the small model: new encoders, warmed up on latents before they are trained on pixels.

python train.py configs/small_warm_up.py
interlcm export runs/small/warm_up --model-folder --license 'CC BY-NC-SA 4.0' -o runs/small/warm_up/model
"""

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.degradation import DegradationConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.training.config import (
    OptimizerConfig,
    RunConfig,
    StartConfig,
    TrainConfig,
    ValidationConfig,
)

config = TrainConfig(
    stage="warm_up",
    # The paper skips one step; this small prior can't tell a face from as much noise (docs/miniature.md).
    start=StartConfig(model="runs/small/distillation/model", fresh=True, num_network_calls=3, skipped_steps=7),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        degradation=DegradationConfig.release_256(),
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
    ),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, final_learning_rate=1e-4, decay_steps=9000, b2=0.99, clip_norm=1.0, ema=0.998
    ),
    validation=ValidationConfig(path="runs/data/test", every=500, count=16, grid=6),
    run=RunConfig(folder="runs/small/warm_up", log_every=25, checkpoint_every=250, keep=2),
    steps=6850,
    batch_size=2,
    dtype="float32",
    remat="none",
    unroll=True,
)
