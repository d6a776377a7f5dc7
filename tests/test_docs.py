"""The pages hold what they say: their Python runs as it is pasted, and their commands' options exist."""

import contextlib
import dataclasses
import io
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import evaluate
import train
from interlcm_jax.cli.main import main
from interlcm_jax.convert import clip_vision, controlnet, unet, vae
from interlcm_jax.convert.checkpoints import DIFFUSERS, TRANSFORMERS
from interlcm_jax.convert.rules import to_torch
from interlcm_jax.convert.writers import write_folder
from interlcm_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.weights import abstract, lazy_weights, skeleton
from tests.miniature import miniature_model
from tests.models.random_weights import fill_randomly

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_PYTHON = [page for page in PAGES if BLOCK.search(page.read_text())]


def name(page):
    """Of a page, as the tests' names have it."""
    return str(page.relative_to(ROOT))


ONE_LEVEL = UNetConfig(
    block_out_channels=(8,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    layers_per_block=1,
    cross_attention_dim=768,
    num_heads=2,
    norm_num_groups=4,
)


@pytest.fixture
def quick_compilation():
    """Programs that are run once, and whose numbers nobody looks at."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader's working folder: what the pages name is there, under those names but tiny."""
    monkeypatch.chdir(tmp_path)
    lcm = "SimianLuo/LCM_Dreamshaper_v7"
    _publish(f"{lcm}/unet", UNet2DCondition, dataclasses.replace(ONE_LEVEL, time_cond_proj_dim=16), unet.TABLE)
    _publish(f"{lcm}/vae", AutoencoderKL, VAEConfig.miniature(), vae.TABLE)
    _publish("stable-diffusion-v1-5/stable-diffusion-v1-5/unet", UNet2DCondition, ONE_LEVEL, unet.TABLE)
    conditioned = ControlNetConfig.from_unet(ONE_LEVEL, conditioning_embedding_out_channels=(4, 4, 4, 4))
    _publish("lllyasviel/sd-controlnet-canny", ControlNet, conditioned, controlnet.TABLE)
    tower = CLIPVisionConfig.miniature()
    _publish("openai/clip-vit-base-patch16", CLIPVision, tower, clip_vision.TABLE, TRANSFORMERS)
    miniature_model().save_pretrained("models/restoration")
    monkeypatch.setenv("INTERLCM_MODELS", "models")
    Path("docs").mkdir()
    shutil.copy(ROOT / "docs" / "astronaut.jpg", "docs")
    face = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(face).save("face.png")


def _publish(folder, kind, config, table, stem=DIFFUSERS):
    network = fill_randomly(abstract(lambda rngs: kind(config, rngs=rngs)))
    write_folder(Path(folder), config.to_json(), to_torch(lazy_weights(network), skeleton(network), table), stem)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_runs_as_it_is_pasted(page, reader, quick_compilation):
    """All blocks of a page, one after the other, under the settings that JAX has by itself."""
    names = {"__name__": "__main__"}
    text = page.read_text()
    for found in BLOCK.finditer(text):
        # Line numbers of the page, so that a failure names the line to mend.
        blank = "\n" * text[: found.start(1)].count("\n")
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            exec(compile(blank + found[1], str(page), "exec"), names)


CODE = re.compile(r"^```bash\n(.*?)^```$|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
# Programs whose options aren't ours, and benchmarks.
OTHERS = re.compile(
    r"\b(benchmarks|curl|docker|gcloud|kubectl|mkdocs|pip|pytest|ruff|sbatch|sky|srun|tensorboard|LIBTPU_INIT_ARGS)\b"
)
PLACES = re.compile(r"\b(?:configs|docs|interlcm_jax|launch|tests)/[\w/.-]*\w")


def code(page):
    """The page's commands and everything it sets in code."""
    for block, inline in CODE.findall(page.read_text()):
        yield from block.replace("\\\n", " ").splitlines() or [inline]


@pytest.fixture(scope="module")
def options():
    """All options of all commands, as their help prints them."""
    commands = ("restore", "demo", "download", "convert", "add", "export", "compile", "parity", "align", "dataset")
    asked = [(main, [command, "--help"]) for command in commands]
    asked += [(train.main, ["--help"]), (evaluate.main, ["--help"])]
    asked += [(train.main, [str(ROOT / "configs" / "interlcm_3step.py"), "--fields"])]
    printed = io.StringIO()
    for command, arguments in asked:
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit, match="0"):
            command(arguments)
    return set(re.findall(r"--[a-z][\w.-]*", printed.getvalue()))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_exist(page, options):
    parts = [part for line in code(page) for part in line.split(" && ")]
    ours = [part for part in parts if not OTHERS.search(part)]
    named = {option for line in ours for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", line)}
    assert named <= options


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_exist(page):
    named = {place for line in code(page) for place in PLACES.findall(line)} - {"configs/NAME.py"}
    assert [place for place in sorted(named) if not (ROOT / place).exists()] == []
