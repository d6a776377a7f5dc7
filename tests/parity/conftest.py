"""The release's files for the tests of `interlcm convert`."""

import shutil

import pytest

from interlcm_jax.model_folder import ModelConfig
from tests.parity.release import Release
from tests.parity.release_files import convert


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The release's files, miniature."""
    folder = tmp_path_factory.mktemp("release")
    Release.random(ModelConfig.miniature()).save(folder)
    return folder


@pytest.fixture(scope="session")
def converted(files, tmp_path_factory):
    """The model folder that whole files give."""
    out = tmp_path_factory.mktemp("converted") / "model"
    assert convert(files, out) == 0
    return out


@pytest.fixture
def release(files, tmp_path):
    """A copy to break."""
    return shutil.copytree(files, tmp_path / "release")
