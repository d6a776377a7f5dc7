"""The real sizes by number, with random weights: `pytest -m full`, about 12 GB and some minutes.

INTERLCM_FACE names the aligned face to restore; without it a smooth pattern stands in for one.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image

from interlcm_jax.convert import clip_vision, discriminator, parsenet, retinaface, unet, vae, visual_encoder
from interlcm_jax.convert.rules import Table
from interlcm_jax.faces.parsenet import ParseNet, ParseNetConfig
from interlcm_jax.faces.retinaface import RetinaFace, RetinaFaceConfig
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.controlnet import ControlNet
from interlcm_jax.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.visual_encoder import VisualEncoder
from interlcm_jax.parity.reference import all_tokens
from tests.parity import release
from tests.parity.bridge import abstract, load, run
from tests.parity.parsenet_twin import TorchParseNet
from tests.parity.retinaface_twin import TorchRetinaFace
from tests.parity.test_discriminator import pytorch_discriminator

pytestmark = pytest.mark.full

CONFIG = ModelConfig.released()
RELATIVE = 1e-4  # maximum absolute error over the output's standard deviation
GB = 1e9

# Run in a process of its own, which tells its peak. (What the system tells of a child counts its parent's memory too,
# from between fork and exec.)
RESTORE = """
import sys, numpy as np, jax
from interlcm_jax import InterLCM
jax.config.update("jax_default_matmul_precision", "highest")
folder, noise, lq, out = sys.argv[1:]
model = InterLCM.from_pretrained(folder)
np.save(out, model.restore(np.load(lq), np.load(noise)))
"""
CONVERT = """
import sys
from interlcm_jax.cli.main import main
assert main(["convert", *sys.argv[1:]]) == 0
"""
TELL_PEAK = """
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def to_jax(x: torch.Tensor) -> jax.Array:
    return jnp.asarray(x.permute(0, 2, 3, 1).numpy() if x.ndim == 4 else x.numpy())


def leaves(outputs: object) -> list[torch.Tensor]:
    return [x for item in outputs for x in leaves(item)] if isinstance(outputs, list | tuple) else [outputs]


def compare(
    name: str, theirs: torch.nn.Module, forward: Callable, ours: nnx.Module, table: Table, inputs: list, **how: str
) -> None:
    """PyTorch first, then JAX; the error is printed for the README's proof table."""
    with torch.no_grad():
        expected = leaves(forward(theirs, *inputs))
    ours = load(ours, theirs.state_dict(), table)
    del theirs
    gc.collect()
    actual = jax.tree.leaves(run(ours, *(None if x is None else to_jax(x) for x in inputs), **how))
    errors = [float(np.abs(a - to_jax(e)).max() / e.std()) for a, e in zip(actual, expected, strict=True)]
    print(f"\n{name}: maximum absolute error / standard deviation {max(errors):.1e}")
    assert max(errors) <= RELATIVE


def test_unet():
    def forward(model, latents, step, context, cond):
        return model(latents, step, context, timestep_cond=cond).sample

    inputs = [normal(1, 4, 64, 64), torch.tensor([499.0]), normal(1, 77, 768, seed=2), normal(1, 256, seed=3)]
    ours = abstract(UNet2DCondition, CONFIG.unet)
    compare("UNet", release.unet(CONFIG), forward, ours, unet.TABLE, inputs)


def test_spatial_encoder():
    def forward(model, latents, step, context, image):
        return model(latents, step, context, image, return_dict=False)

    inputs = [normal(1, 4, 64, 64), torch.tensor([759.0]), normal(1, 77, 768, seed=2), normal(1, 3, 512, 512, seed=3)]
    ours = abstract(ControlNet, CONFIG.spatial_encoder)
    compare("Spatial Encoder", release.spatial_encoder(CONFIG), forward, ours, unet.TABLE, inputs)


@pytest.mark.parametrize(("method", "shape"), [("encode", (1, 3, 512, 512)), ("decode", (1, 4, 64, 64))])
def test_vae(method: str, shape: tuple[int, ...]):
    def forward(model, x):
        if method == "decode":
            return model.decode(x).sample
        distribution = model.encode(x).latent_dist
        return [distribution.mean, distribution.logvar]

    ours = abstract(AutoencoderKL, CONFIG.vae)
    compare(f"VAE {method}", release.vae(CONFIG), forward, ours, vae.TABLE, [normal(*shape)], method=method)


def test_clip_vision():
    ours = abstract(CLIPVision, CONFIG.clip_vision)
    theirs = release.clip_vision(CONFIG)
    compare("CLIP", theirs, all_tokens, ours, clip_vision.TABLE, [normal(2, 3, 224, 224)])


def test_visual_encoder():
    ours = abstract(VisualEncoder, CONFIG.visual_encoder)
    theirs = release.visual_encoder(CONFIG)
    inputs = [normal(2, 197, 768)]
    compare("Visual Encoder", theirs, lambda model, x: model(x), ours, visual_encoder.TABLE, inputs)


def test_discriminator():
    class Evaluated(PatchDiscriminator):
        def __call__(self, image):
            return super().__call__(image, train=False)

    theirs = release.randomize(pytorch_discriminator(DiscriminatorConfig()))
    ours = abstract(Evaluated, DiscriminatorConfig())
    inputs = [normal(1, 3, 512, 512)]
    compare("Discriminator", theirs, lambda model, x: model(x), ours, discriminator.TABLE, inputs)


@pytest.mark.parametrize("config", [RetinaFaceConfig(), RetinaFaceConfig.mobilenet()], ids=["resnet", "mobilenet"])
def test_retinaface(config):
    ours, theirs = abstract(RetinaFace, config), release.randomize(TorchRetinaFace(config))
    inputs = [normal(1, 3, 640, 864)]
    compare("RetinaFace", theirs, lambda model, x: list(model(x)), ours, retinaface.table(config), inputs)


def test_parsenet():
    ours, theirs = abstract(ParseNet, ParseNetConfig()), release.randomize(TorchParseNet(ParseNetConfig()))
    inputs = [normal(1, 3, 512, 512)]
    compare("ParseNet", theirs, lambda model, x: list(model(x)), ours, parsenet.TABLE, inputs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release's files at full size, a face, noise, and PyTorch's restorations of it by 3 calls and by 1."""
    folder = tmp_path_factory.mktemp("full")
    model = release.Release.random(CONFIG)
    lq, noise = face(), normal(3, 1, 4, 64, 64, seed=7)
    np.save(folder / "lq.npy", lq[None].astype(np.float32) / 127.5 - 1)
    images = torch.from_numpy(np.load(folder / "lq.npy").transpose(0, 3, 1, 2))
    for calls in (3, 1):
        np.save(folder / f"noise{calls}.npy", noise[:calls].numpy().transpose(0, 1, 3, 4, 2))
        np.save(folder / f"expected{calls}.npy", to_jax(model.restore(images, noise[:calls])))
    model.save(folder)
    return folder


def face() -> np.ndarray:
    if path := os.environ.get("INTERLCM_FACE"):
        return np.asarray(Image.open(path).convert("RGB").resize((512, 512)))
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC))


def peak_bytes(script: str, *arguments: object) -> int:
    """Runs a script and returns the most memory it held."""
    command = [sys.executable, "-c", script + TELL_PEAK, *map(str, arguments)]
    # Without the tests' eight devices, which cost memory of their own.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return int(output.split()[-1]) * 1024


@pytest.fixture(scope="module")
def converted(folder: Path) -> tuple[Path, int]:
    options = [f"--{name}={folder / name}" for name in ("lcm", "clip")]
    options += [f"--{name.replace('_', '-')}={folder / name}.pth" for name in ("visual_encoder", "spatial_encoder")]
    return folder / "model", peak_bytes(CONVERT, *options, "-o", folder / "model")


def test_conversion_peak(folder: Path, converted: tuple[Path, int]):
    largest = (folder / "lcm" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    print(f"\nconvert: peak {converted[1] / GB:.2f} GB, {converted[1] / largest:.2f} of the largest network")
    assert converted[1] < 1.3 * largest


@pytest.mark.parametrize("calls", [3, 1])
def test_restoration(folder: Path, converted: tuple[Path, int], calls: int):
    out = folder / f"restored{calls}.npy"
    peak = peak_bytes(RESTORE, converted[0], folder / f"noise{calls}.npy", folder / "lq.npy", out)
    restored, expected = np.load(out), np.load(folder / f"expected{calls}.npy")
    error = np.abs(restored - expected).max()
    levels = np.abs(eight_bit(restored) - eight_bit(expected))
    print(
        f"\nrestoration, {calls} calls: maximum error {error:.1e}, {levels.max()} of 255 levels "
        f"({(levels > 0).mean():.2%} of values differ), peak {peak / GB:.2f} GB"
    )
    assert levels.max() <= 1
    assert peak < 8 * GB


def eight_bit(images: np.ndarray) -> np.ndarray:
    return np.round((np.clip(images, -1, 1) + 1) * 127.5).astype(int)
