r"""The 3-step encoders, second part: through the wide decoder, on structure; then mixed with the adversarial part.

python train.py configs/small_3step_structure.py
interlcm export runs/small/3step_structure --model-folder --license 'CC BY-NC-SA 4.0' \
    -o runs/small/3step_structure/model
python docs/mix.py runs/small/3step_structure/model runs/small/3step_adversarial/model --share 0.65 \
    -o runs/small/3step_mix/model
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
    ),
    losses=LossConfig(color=0.5, ssim=0.5, lpips=0.0, onet=0.05, adversarial=0.0),
    discriminator=DiscriminatorConfig.small(),
    optimizer=OptimizerConfig(
        learning_rate=1.5e-4, final_learning_rate=2e-5, decay_steps=400, b2=0.99, clip_norm=1.0, ema=0.98
    ),
    validation=ValidationConfig(path="runs/data/test", every=50, count=16, grid=6),
    run=RunConfig(folder="runs/small/3step_structure", log_every=25, checkpoint_every=50, keep=2),
    steps=400,
    batch_size=2,
    dtype="float32",
    remat="none",
    unroll=True,
)
