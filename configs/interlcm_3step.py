"""InterLCM with 3 network calls, as released: 512 x 512 faces, 15,000 steps.

    interlcm dataset FFHQ -o data/ffhq
    python train.py configs/interlcm_3step.py --data.path data/ffhq

Weights come from Hugging Face's hub on the first run; `--start.model DIR` takes a model folder instead. A step has 16
images, which is one a chip on a TPU v5e 4x4.
"""

from interlcm_jax.data.loader import DataConfig
from interlcm_jax.training.config import RunConfig, StartConfig, TrainConfig

config = TrainConfig(
    start=StartConfig(
        lcm="SimianLuo/LCM_Dreamshaper_v7",
        clip="openai/clip-vit-base-patch16",
        sd15="stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
    data=DataConfig(workers=4),
    run=RunConfig(folder="runs/interlcm_3step"),
)
