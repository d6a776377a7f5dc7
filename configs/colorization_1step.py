"""Colorization: gray faces in, colors out; a single network call, as released.

    python train.py configs/colorization_1step.py --data.path data/ffhq

Data, weights and hardware are those of configs/interlcm_3step.py.
"""

from interlcm_jax.data.degradation import DegradationConfig
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.training.config import RunConfig, StartConfig, TrainConfig

config = TrainConfig(
    start=StartConfig(
        lcm="SimianLuo/LCM_Dreamshaper_v7",
        clip="openai/clip-vit-base-patch16",
        sd15="stable-diffusion-v1-5/stable-diffusion-v1-5",
        num_network_calls=1,
        task="colorization",
    ),
    data=DataConfig(workers=4, degradation=DegradationConfig.gray()),
    run=RunConfig(folder="runs/colorization_1step"),
)
