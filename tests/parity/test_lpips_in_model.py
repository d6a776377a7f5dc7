"""LPIPS beside a model's networks: through `convert` into the model folder, and back through `export`."""

import torch

from interlcm_jax.convert.lpips import load, to_pytorch
from interlcm_jax.convert.model import Sources, convert, export
from interlcm_jax.convert.writers import write_torch
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.lpips import random_params, skeleton
from tests.parity.release import Release


def test_convert_and_export_carry_lpips_along(tmp_path):
    for name, weights in zip(("vgg16", "heads"), to_pytorch(random_params(0)), strict=True):
        write_torch(tmp_path / f"{name}.pth", weights, wrappers=())
    files = Release.random(ModelConfig.miniature()).save(tmp_path)
    sources = Sources(**files, vgg=tmp_path / "vgg16.pth", lpips_heads=tmp_path / "heads.pth")
    convert(sources, tmp_path / "model", image_size=64)
    assert load(tmp_path / "model")["vgg"]["conv1_1"]["kernel"].shape == skeleton()["vgg.conv1_1.kernel"].shape
    export(tmp_path / "model", tmp_path / "out")
    for given, exported in (("vgg16", "vgg16"), ("heads", "lpips_vgg")):
        ours = torch.load(tmp_path / "out" / f"{exported}.pth", weights_only=True)
        theirs = torch.load(tmp_path / f"{given}.pth", weights_only=True)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
