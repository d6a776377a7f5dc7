r"""First stage of the small model, third part: a wider decoder, on a GPU; the encoder stays, and with it the latents.

python train.py configs/small_autoencoder_wide.py
interlcm export runs/small/autoencoder_wide --model-folder --license 'CC BY-NC-SA 4.0' \
    -o runs/small/autoencoder_wide/model
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
    start=StartConfig(model="runs/small/autoencoder_finish/model"),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
        channel_permutation=0.1,
        workers=4,
        prefetch=4,
    ),
    losses=LossConfig(
        color=2.0, texture=0.4, ssim=0.3, lpips=0.0, onet=0.1, adversarial=0.05, matching=0.15, adversarial_from=0
    ),
    discriminator=DiscriminatorConfig(base_channels=64, num_layers=3),
    autoencoder=AutoencoderConfig(decoder_only=True, new_decoder=(48, 96, 128, 192)),
    optimizer=OptimizerConfig(
        learning_rate=5e-4, final_learning_rate=2e-5, decay_steps=5600, b1=0.5, b2=0.99, clip_norm=1.0, ema=0.998
    ),
    validation=ValidationConfig(path="runs/data/test", every=1000, count=16, grid=6),
    run=RunConfig(folder="runs/small/autoencoder_wide", log_every=50, checkpoint_every=1000, keep=2),
    steps=5600,
    batch_size=24,
    dtype="bfloat16",
    remat="none",
)
