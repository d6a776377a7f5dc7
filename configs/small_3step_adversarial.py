r"""The 3-step encoders, a second part of their own, on a GPU: an adversary asks for what a sharp face has.

python train.py configs/small_3step_adversarial.py
interlcm export runs/small/3step_adversarial --model-folder --license 'CC BY-NC-SA 4.0' \
    -o runs/small/3step_adversarial/model
"""

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.degradation import DegradationConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.training.config import (
    LossConfig,
    OptimizerConfig,
    RunConfig,
    StartConfig,
    TrainConfig,
    ValidationConfig,
)

config = TrainConfig(
    start=StartConfig(model="runs/small/3step/model", num_network_calls=3, skipped_steps=7),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        degradation=DegradationConfig.release_256(),
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
        workers=6,
        prefetch=4,
    ),
    losses=LossConfig(
        color=0.5, texture=0.1, ssim=0.3, lpips=0.0, onet=0.03, adversarial=0.03, matching=0.1, adversarial_from=0
    ),
    discriminator=DiscriminatorConfig(base_channels=64, num_layers=3),
    optimizer=OptimizerConfig(
        learning_rate=3e-4, final_learning_rate=3e-5, decay_steps=3500, b2=0.99, clip_norm=1.0, ema=0.998
    ),
    validation=ValidationConfig(path="runs/data/test", every=500, count=16, grid=6),
    run=RunConfig(folder="runs/small/3step_adversarial", log_every=25, checkpoint_every=500, keep=2),
    steps=2430,
    batch_size=24,
    dtype="float32",
    remat="none",
)
