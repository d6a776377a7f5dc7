"""Second stage of the small model, from nothing: the token tower, a ViT that learns faces by completing them.

python train.py configs/small_token_tower.py
interlcm export runs/small/token_tower --model-folder --license 'CC BY-NC-SA 4.0' -o runs/small/token_tower/model
"""

from interlcm_jax.data.augment import WarpConfig
from interlcm_jax.data.degradation import DegradationConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.training.config import OptimizerConfig, RunConfig, StartConfig, TrainConfig, ValidationConfig

config = TrainConfig(
    stage="token_tower",
    start=StartConfig(model="runs/small/autoencoder_mix/model"),
    # The tower sees 128 pixels: a quarter of the release's blur and downsampling.
    data=DataConfig(
        path="runs/data/train",
        image_size=128,
        degradation=DegradationConfig(blur_sigma=(0.05, 2.5), downsampling=(1.0, 3.0)),
        warp=WarpConfig(turn=10.0, scale=0.1, shift=0.05),
    ),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, final_learning_rate=1e-5, decay_steps=4000, b2=0.99, clip_norm=1.0, ema=0.998
    ),
    validation=ValidationConfig(path="runs/data/test", every=1000, count=16, grid=6),
    run=RunConfig(folder="runs/small/token_tower", log_every=50, checkpoint_every=1000, keep=2),
    steps=4000,
    batch_size=32,
    remat="none",
)
