"""First stage of the small model, from nothing: the autoencoder, on crops of 128 pixels.

interlcm dataset FACES -o runs/data/train --size 256 --exclude-last 64
interlcm dataset FACES -o runs/data/test --size 256 --only-last 64 --frozen --degradation release-256
python train.py configs/small_autoencoder.py
interlcm export runs/small/autoencoder --model-folder --license 'CC BY-NC-SA 4.0' -o runs/small/autoencoder/model
"""

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.training.config import (
    AutoencoderConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    StartConfig,
    TrainConfig,
    ValidationConfig,
)

config = TrainConfig(
    stage="autoencoder",
    start=StartConfig(random="small"),
    data=DataConfig(
        path="runs/data/train", image_size=256, crop=128, warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05)
    ),
    losses=LossConfig(lpips=0.0, onet=0.0, adversarial=0.0),
    discriminator=DiscriminatorConfig.small(),
    autoencoder=AutoencoderConfig(divergence=1e-5),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, final_learning_rate=5e-5, decay_steps=8500, b2=0.99, clip_norm=1.0, ema=0.998
    ),
    validation=ValidationConfig(path="runs/data/test", every=1000, count=16, grid=6),
    run=RunConfig(folder="runs/small/autoencoder", log_every=50, checkpoint_every=500, keep=2),
    steps=8500,
    batch_size=2,
    dtype="bfloat16",
    remat="none",
)
