"""`interlcm restore` with an upsampler, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from interlcm_jax.cli.main import main
from interlcm_jax.convert.upsampler import Upsampler, write_upsampler
from interlcm_jax.files.user_folders import MODELS_VARIABLE
from interlcm_jax.imaging.io import read_photo
from interlcm_jax.models.upsampler import SRVGGConfig, SRVGGNetCompact
from interlcm_jax.models.weights import lazy_weights
from interlcm_jax.photos import upsample
from tests.cli.aligned_faces import answering
from tests.models.random_weights import random_network

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def upsampler(tmp_path, monkeypatch):
    """One that is found by its name."""
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    monkeypatch.setattr(upsample, "TILE", 96)
    config = SRVGGConfig.miniature()
    weights = lazy_weights(random_network(SRVGGNetCompact, config))
    folder = tmp_path / "models" / "upsamplers" / "tiny"
    write_upsampler(Upsampler("SRVGGNetCompact", config, weights, tmp_path), folder, "these tests", "none")


def test_photos_are_enlarged_with_and_without_faces(model, upsampler, capsys, monkeypatch):
    answering(monkeypatch, lambda face: face)
    Image.fromarray(data.astronaut()[:256]).save("a.png")
    Image.fromarray(data.brick()[:64, :64]).save("wall.png")
    arguments = ["restore", "--model", str(model), "a.png", "wall.png"]
    assert main([*arguments, "-o", "plain", "--upscale", "1.5"]) == 0
    assert "found no face in 1, so nothing was written for them" in capsys.readouterr().out
    arguments += ["--background-upsampler", "tiny", "--upsample-faces", "--upscale", "1.5"]
    assert main([*arguments, "-o", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["no_face"] == ["wall.png"]
    wall, plain, enlarged = (read_photo(Path(name)).pixels for name in ("out/wall.png", "plain/a.png", "out/a.png"))
    assert wall.shape == (96, 96, 3)
    assert plain.shape == enlarged.shape == (384, 768, 3)
    assert np.abs(plain.astype(int) - enlarged).mean() > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--upsample-faces"], "--upsample-faces needs --background-upsampler"),
        (["--background-upsampler", "tiny", "--aligned"], "--background-upsampler is for photos"),
        (["--background-upsampler", "huge"], "huge: no such upsampler; interlcm download --upsampler x2plus"),
    ],
)
def test_requests_that_cannot_be_carried_out(model, upsampler, capsys, options, message):
    Image.fromarray(data.brick()[:64, :64]).save("wall.png")
    assert main(["restore", "--model", str(model), "wall.png", "-o", "out", *options]) == 2
    assert message in capsys.readouterr().err
