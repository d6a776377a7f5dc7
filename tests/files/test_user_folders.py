"""Where caches and models are kept on each platform."""

import sys
from pathlib import Path

import pytest

from interlcm_jax.files.user_folders import cache_folder, models_folder

VARIABLES = ("INTERLCM_CACHE", "INTERLCM_MODELS", "XDG_CACHE_HOME", "XDG_DATA_HOME", "LOCALAPPDATA")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "cache", "models"),
    [
        ("linux", ".cache/interlcm_jax", ".local/share/interlcm_jax/models"),
        ("darwin", "Library/Caches/interlcm_jax", "Library/Application Support/interlcm_jax/models"),
        ("win32", "AppData/Local/interlcm_jax", "AppData/Local/interlcm_jax/models"),
    ],
)
def test_each_platform_has_its_places(home, monkeypatch, platform, cache, models):
    monkeypatch.setattr(sys, "platform", platform)
    assert (cache_folder(), models_folder()) == (home / cache, home / models)


def test_the_environment_names_others(monkeypatch):
    for name, folder in zip(VARIABLES[2:4], ("/cache", "/data"), strict=True):
        monkeypatch.setenv(name, folder)
    monkeypatch.setattr(sys, "platform", "linux")
    assert (cache_folder(), models_folder()) == (Path("/cache/interlcm_jax"), Path("/data/interlcm_jax/models"))
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv(VARIABLES[0], "~/kept")
    assert cache_folder() == Path("/home/someone/kept")
    for name, folder in zip(VARIABLES[:2], ("/my/cache", "/my/models"), strict=True):
        monkeypatch.setenv(name, folder)
    assert (cache_folder(), models_folder()) == (Path("/my/cache"), Path("/my/models"))
