"""A trial run of all of the training: tiny networks of random weights on 64 x 64 pixels. Two CPU cores, eight minutes.

    interlcm dataset FACES -o runs/data/train --size 64 --exclude-last 64
    interlcm dataset FACES -o runs/data/test --size 64 --only-last 64 --frozen
    python train.py configs/smoke.py

FACES is a folder of aligned faces. The frozen networks are random too, the decoder among them, so the pictures stay
patterns: what can be seen is that the losses fall, that a stopped run goes on, and where everything is kept. On the 904
faces of the One Million Impressions data set the L1 loss falls from 0.56 at step 10 to 0.48 at step 400, and the
held-out faces' PSNR rises from 11.0 dB at step 100 to 11.8 dB. The discriminator counts from step 200 on.
"""

from interlcm_jax.data.degradation import DegradationConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.training.config import OptimizerConfig, RunConfig, StartConfig, TrainConfig, ValidationConfig
from interlcm_jax.training.losses import LossConfig
from interlcm_jax.training.stages import Restoration

config = TrainConfig(
    stage=Restoration(
        losses=LossConfig(adversarial_from=200, lpips_weights="random", discriminator=DiscriminatorConfig.miniature())
    ),
    start=StartConfig(random="miniature"),
    data=DataConfig(
        path="runs/data/train", image_size=64, degradation=DegradationConfig(blur_sigma=(0.1, 1.5), downsampling=(1, 4))
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, final_learning_rate=1e-4, decay_steps=400, ema=0.99),
    validation=ValidationConfig(path="runs/data/test", every=100, count=16),
    run=RunConfig(folder="runs/smoke", log_every=10, checkpoint_every=100),
    steps=400,
    batch_size=8,
    dtype="float32",
)
