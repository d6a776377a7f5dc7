"""Restores one aligned face: python run.py photo.png restored.png"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export
from PIL import Image, ImageOps
from safetensors.flax import load_file

folder = Path(__file__).parent
program = export.deserialize((folder / "program.bin").read_bytes())
batch, size = program.in_avals[-2].shape[:2]
face = ImageOps.exif_transpose(Image.open(sys.argv[1]))
if face.mode in ("I", "F"):
    sys.exit(f"{sys.argv[1]}: 32 bits a pixel; 8 and 16 are read")
if face.mode.startswith("I;16"):  # Pillow would cut gray of 16 bits off at 255
    face = Image.fromarray(((np.asarray(face).astype(np.uint32) + 128) // 257).astype(np.uint8))
face = face.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
# By its defaults, XLA takes longer on a CPU, and some versions sum wrong.
options = json.loads((folder / "cpu_options.json").read_text()) if jax.default_backend() == "cpu" else None
restore = jax.jit(program.call, compiler_options=options)
restored, finite = restore(load_file(folder / "weights.safetensors"), np.stack([face] * batch), np.uint32(0))
Image.fromarray(np.asarray(restored)[finite][0]).save(sys.argv[2])
