r"""First stage of the small model, fourth part: the wide decoder on structure, in other light too; then mixed.

python train.py configs/small_autoencoder_wide_finish.py
interlcm export runs/small/autoencoder_wide_finish --model-folder --license 'CC BY-NC-SA 4.0' \
    -o runs/small/autoencoder_wide_finish/model
python docs/mix.py runs/small/autoencoder_wide_finish/model runs/small/autoencoder_wide/model --networks vae \
    --share 0.5 -o runs/small/autoencoder_mix/model
"""

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.data.photometric import PhotometricConfig
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
    start=StartConfig(model="runs/small/autoencoder_wide/model"),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        crop=128,
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
        photometric=PhotometricConfig(probability=0.6, gray=0.4, gamma=0.7, contrast=0.5, shade=0.8, tint=12.0),
        channel_permutation=0.1,
    ),
    losses=LossConfig(color=2.0, texture=4.0, ssim=0.3, lpips=0.0, onet=0.1, adversarial=0.0),
    autoencoder=AutoencoderConfig(decoder_only=True),
    optimizer=OptimizerConfig(
        learning_rate=2e-4, final_learning_rate=2e-5, decay_steps=800, b2=0.99, clip_norm=1.0, ema=0.98
    ),
    validation=ValidationConfig(path="runs/data/test", every=200, count=16, grid=6),
    run=RunConfig(folder="runs/small/autoencoder_wide_finish", log_every=25, checkpoint_every=200, keep=2),
    steps=800,
    batch_size=4,
    dtype="float32",
    remat="none",
)
