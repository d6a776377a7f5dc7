"""What the commands' tests share: the miniature model as a folder on disk."""

import pytest

from tests.miniature import miniature_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The model's folder; tests must not change it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    miniature_model().save_pretrained(folder)
    return folder


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Runs in an empty folder, so that relative paths work and strays are seen."""
    monkeypatch.chdir(tmp_path)
