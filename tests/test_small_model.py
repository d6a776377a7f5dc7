"""The model that the package carries: what is shipped, and that it restores a photograph it never saw."""

import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from interlcm_jax.cli.main import main
from interlcm_jax.default_model import SMALL, default_model, describe_model
from interlcm_jax.files.safetensors import open_safetensors
from interlcm_jax.metrics.image import ssim
from interlcm_jax.metrics.sharpness import laplacian_variance
from interlcm_jax.model_folder import NETWORKS, read_config, weights_file

REPOSITORY = Path(__file__).parent.parent
PHOTO = REPOSITORY / "docs" / "astronaut.jpg"
# Rows and columns of scikit-image's portrait that the photo shows, and of the face in it.
SHOWN = (slice(0, 340), slice(60, 400))
FACE = (slice(70, 180), slice(115, 215))


@pytest.fixture
def no_download(tmp_path, monkeypatch):
    """A user who downloaded no model."""
    monkeypatch.setenv("INTERLCM_MODELS", str(tmp_path / "models"))


def test_it_is_whole_small_and_says_its_license():
    """Five networks in half precision, 40 MB at most, as files of the package."""
    paths = [weights_file(SMALL, name) for name in NETWORKS]
    assert sum(path.stat().st_size for path in paths) < 40e6
    assert all(str(tensor.dtype) == "float16" for path in paths for tensor in open_safetensors(path).values())
    config = read_config(SMALL)
    assert {entry["license"] for entry in config.weights.values()} == {"CC BY-NC-SA 4.0"}
    assert set(config.weights) == set(NETWORKS)
    assert "CC BY-NC-SA 4.0" in (SMALL / "README.md").read_text()
    assert files("interlcm_jax").joinpath("weights/small/config.json").is_file()


def test_the_packages_license_names_that_of_the_weights():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0 AND CC-BY-NC-SA-4.0"
    titles = [(REPOSITORY / file).read_text().strip().splitlines()[0].strip() for file in project["license-files"]]
    assert titles == ["Apache License", "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International"]


@pytest.mark.usefixtures("no_download")
def test_it_is_the_default_and_says_so():
    assert default_model() == SMALL
    line = describe_model(SMALL, read_config(SMALL))
    assert "the small one of the package, restoration at 256 x 256 px" in line
    assert "license: CC BY-NC-SA 4.0; get the full-size model" in line


@pytest.mark.usefixtures("no_download")
def test_the_readmes_first_command_restores_its_photo(tmp_path):
    """The face comes out far sharper and nearer to the original; what isn't face stays."""
    assert main(["restore", str(PHOTO), "-o", str(tmp_path), "--upscale", "1"]) == 0
    before, after = (np.asarray(Image.open(path)) for path in (PHOTO, tmp_path / "astronaut.png"))
    # Photos under 512 pixels are enlarged to that first.
    after = np.asarray(Image.fromarray(after).resize(before.shape[1::-1], Image.Resampling.LANCZOS))
    original = astronaut()[SHOWN]
    near = [float(ssim(image[FACE][None], original[FACE][None])[0]) for image in (before, after)]
    assert near[1] > near[0] + 0.01, near
    sharp = [float(laplacian_variance(image[FACE][None])[0]) for image in (before, after, original)]
    assert max(5 * sharp[0], 0.3 * sharp[2]) < sharp[1] < sharp[2], sharp
    rest = np.abs(after[250:].astype(int) - before[250:]).mean()
    assert rest < 1, rest
