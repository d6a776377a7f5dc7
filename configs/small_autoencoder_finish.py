r"""First stage of the small model, second part: the autoencoder's colors and sharpness.

python train.py configs/small_autoencoder_finish.py
interlcm export runs/small/autoencoder_finish --model-folder --license 'CC BY-NC-SA 4.0' \
    -o runs/small/autoencoder_finish/model
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
    start=StartConfig(model="runs/small/autoencoder/model"),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        crop=128,
        channel_permutation=0.5,
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
    ),
    losses=LossConfig(color=2.0, lpips=0.0, onet=0.0, adversarial=0.0),
    discriminator=DiscriminatorConfig.small(),
    autoencoder=AutoencoderConfig(divergence=1e-5),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, final_learning_rate=3e-5, decay_steps=5000, b2=0.99, clip_norm=1.0, ema=0.998
    ),
    validation=ValidationConfig(path="runs/data/test", every=500, count=16, grid=6),
    run=RunConfig(folder="runs/small/autoencoder_finish", log_every=50, checkpoint_every=500, keep=2),
    steps=5000,
    batch_size=2,
    dtype="bfloat16",
    remat="none",
)
