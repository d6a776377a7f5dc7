r"""The decoder against an adversary of small patches, on a GPU, with more weight on structure and the finest detail.

python train.py configs/small_autoencoder_finest.py
interlcm export runs/small/autoencoder_finest --model-folder --license 'CC BY-NC-SA 4.0' \
    -o runs/small/autoencoder_finest/model
python docs/mix.py runs/small/distillation_large/model runs/small/autoencoder_finest/model --networks vae --share 1 \
    -o runs/small/finest/model
"""

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.data.photometric import PhotometricConfig
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
    start=StartConfig(model="runs/small/3step_sharpen_mix/model", skipped_steps=7),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
        photometric=PhotometricConfig(probability=0.6, gray=0.4, gamma=0.7, contrast=0.5, shade=0.8, tint=12.0),
        channel_permutation=0.1,
        workers=4,
        prefetch=4,
    ),
    losses=LossConfig(
        color=2.0,
        texture=3.0,
        finest=4.0,
        ssim=1.0,
        lpips=0.0,
        onet=0.1,
        adversarial=0.03,
        matching=0.05,
        adversarial_from=0,
    ),
    discriminator=DiscriminatorConfig(base_channels=64, num_layers=2),
    autoencoder=AutoencoderConfig(decoder_only=True),
    optimizer=OptimizerConfig(
        learning_rate=3e-4, final_learning_rate=2e-5, decay_steps=2450, b1=0.5, b2=0.99, clip_norm=1.0, ema=0.997
    ),
    validation=ValidationConfig(path="runs/data/test", every=500, count=16, grid=6),
    run=RunConfig(folder="runs/small/autoencoder_finest", log_every=25, checkpoint_every=500, keep=2),
    steps=2450,
    batch_size=24,
    dtype="bfloat16",
    remat="none",
    seed=12,
)
