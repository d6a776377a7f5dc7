r"""The 3-step encoders, on a GPU: sharpened against an adversary, then mixed by half.

python train.py configs/small_3step_sharpen.py
interlcm export runs/small/3step_sharpen --model-folder --license 'CC BY-NC-SA 4.0' -o runs/small/3step_sharpen/model
python docs/mix.py runs/small/3step_large/model runs/small/3step_sharpen/model --share 0.5 \
    -o runs/small/3step_half/model
python docs/mix.py runs/small/3step_half/model runs/small/3step_finish/model --networks vae --share 0.5 \
    --dtype float16 -o runs/small/3step_sharpen_mix/model
"""

import dataclasses

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.degradation import DegradationConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.data.photometric import PhotometricConfig
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
    start=StartConfig(model="runs/small/3step_large/model", num_network_calls=3, skipped_steps=7),
    data=DataConfig(
        path="runs/data/train",
        image_size=256,
        degradation=dataclasses.replace(DegradationConfig.release_256(), mild_probability=0.25),
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
        photometric=PhotometricConfig(probability=0.6, gray=0.4, gamma=0.7, contrast=0.5, shade=0.8, tint=12.0),
        workers=6,
        prefetch=4,
    ),
    losses=LossConfig(
        color=0.5, texture=4.0, ssim=0.5, lpips=0.0, onet=0.05, adversarial=0.03, matching=0.1, adversarial_from=0
    ),
    discriminator=DiscriminatorConfig(base_channels=64, num_layers=3),
    optimizer=OptimizerConfig(
        learning_rate=2e-4, final_learning_rate=2e-5, decay_steps=975, b2=0.99, clip_norm=1.0, ema=0.998
    ),
    validation=ValidationConfig(path="runs/data/test", every=500, count=16, grid=6),
    run=RunConfig(folder="runs/small/3step_sharpen", log_every=25, checkpoint_every=500, keep=2),
    steps=975,
    batch_size=24,
    dtype="bfloat16",
    remat="none",
    seed=3,
)
