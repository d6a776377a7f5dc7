"""The whole restoration against PyTorch: the release's files through the shipped converter, shared noise."""

import dataclasses
import filecmp

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from interlcm_jax import InterLCM
from interlcm_jax.convert.model import Sources, convert, export
from interlcm_jax.model_folder import NETWORKS, ModelConfig
from tests.parity.bridge import nhwc
from tests.parity.release import Release

RESTORATION = 1e-4  # maximum absolute error in [-1, 1]


@pytest.fixture(scope="module")
def release():
    return Release.random(ModelConfig.miniature())


@pytest.fixture(scope="module")
def folders(release, tmp_path_factory):
    """The release's files, and the model folder made of them."""
    folder = tmp_path_factory.mktemp("release")
    sources = Sources(**release.save(folder))
    convert(sources, folder / "model", image_size=64)
    return folder, sources


@pytest.fixture(scope="module")
def model(folders):
    return InterLCM.from_pretrained(folders[0] / "model")


def draw(calls, batch, height, width):
    generator = torch.Generator().manual_seed(7)
    lq = torch.rand((batch, 3, height, width), generator=generator) * 2 - 1
    return lq, torch.randn((calls, batch, 4, height // 8, width // 8), generator=generator)


@pytest.mark.parametrize(("calls", "batch", "size"), [(3, 1, (64, 64)), (1, 3, (64, 64)), (3, 1, (64, 96))])
def test_equals_pytorch(release, model, calls, batch, size):
    lq, noise = draw(calls, batch, *size)
    expected = nhwc(release.restore(lq, noise))
    actual = model.restore(nhwc(lq), jnp.asarray(noise.numpy().transpose(0, 1, 3, 4, 2)))
    assert 0.1 < np.std(expected) < 3
    assert np.abs(actual - expected).max() <= RESTORATION


def test_config_is_read_from_the_files(folders, model, release):
    expected = dataclasses.replace(release.config, weights=model.config.weights)
    assert model.config == expected
    assert model.config.weights["spatial_encoder"] == {"origin": "spatial_encoder.pth", "license": "not stated"}


def test_convert_export_convert_is_the_identity(folders, tmp_path):
    folder, _ = folders
    export(folder / "model", tmp_path / "exported")
    again = Sources(
        lcm=str(tmp_path / "exported" / "lcm"),
        clip=str(tmp_path / "exported" / "clip"),
        visual_encoder=tmp_path / "exported" / "visual_encoder.pth",
        spatial_encoder=tmp_path / "exported" / "spatial_encoder.pth",
    )
    counts = []
    convert(again, tmp_path / "again", image_size=64, progress=lambda *report: counts.append(report))
    assert sum(count for _, count, _ in counts) == counts[0][2]  # the progress bar ends at its end
    names = ["config.json", *(f"{name}.safetensors" for name in NETWORKS)]
    assert filecmp.cmpfiles(folder / "model", tmp_path / "again", names, shallow=False) == (names, [], [])


def test_pytorch_loads_the_export_strictly(folders, release, tmp_path):
    export(folders[0] / "model", tmp_path / "out")
    unet = type(release.unet).from_pretrained(tmp_path / "out" / "lcm" / "unet", low_cpu_mem_usage=False)
    vae = type(release.vae).from_pretrained(tmp_path / "out" / "lcm" / "vae", low_cpu_mem_usage=False)
    clip, report = type(release.clip_vision).from_pretrained(tmp_path / "out" / "clip", output_loading_info=True)
    assert not any(report.values()), report
    for name in ("visual_encoder", "spatial_encoder"):
        saved = torch.load(tmp_path / "out" / f"{name}.pth", weights_only=True)
        assert saved.keys() == {"params", "params_ema"}
        fresh = type(getattr(release, name))
        fresh = fresh(release.config.visual_encoder) if name == "visual_encoder" else release.spatial_encoder
        fresh.load_state_dict(saved["params_ema"], strict=True)
    for ours, theirs in ((unet, release.unet), (vae, release.vae), (clip, release.clip_vision)):
        for key, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], tensor), key
