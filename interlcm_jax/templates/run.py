"""Restores one aligned face: python run.py photo.png restored.png"""

import sys
from pathlib import Path

import numpy as np
from jax import export
from PIL import Image
from safetensors.flax import load_file

folder = Path(__file__).parent
program = export.deserialize((folder / "program.bin").read_bytes())
batch, size = program.in_avals[-2].shape[:2]
face = Image.open(sys.argv[1]).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
restored, finite = program.call(load_file(folder / "weights.safetensors"), np.stack([face] * batch), np.uint32(0))
Image.fromarray(np.asarray(restored)[finite][0]).save(sys.argv[2])
