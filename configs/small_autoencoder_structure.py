r"""First stage of the small model, fifth part: the decoder again, on structure: details with their contrast, in place.

python train.py configs/small_autoencoder_structure.py
interlcm export runs/small/autoencoder_structure --model-folder --licence 'CC BY-NC-SA 4.0' \
    -o runs/small/autoencoder_structure/model
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
    start=StartConfig(model="runs/small/autoencoder_texture/model"),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        crop=128,
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
    ),
    losses=LossConfig(
        colour=2.0, texture=0.4, ssim=0.3, lpips=0.0, onet=0.1, adversarial=0.0, matching=0.15, adversarial_from=0
    ),
    discriminator=DiscriminatorConfig.small(),
    autoencoder=AutoencoderConfig(decoder_only=True),
    optimizer=OptimizerConfig(
        learning_rate=6e-4, final_learning_rate=2e-5, decay_steps=3600, b2=0.99, clip_norm=1.0, ema=0.995
    ),
    validation=ValidationConfig(path="runs/data/test", every=300, count=16, grid=6),
    run=RunConfig(folder="runs/small/autoencoder_structure", log_every=50, checkpoint_every=300, keep=2),
    steps=3600,
    batch_size=4,
    dtype="float32",
    remat="none",
)
