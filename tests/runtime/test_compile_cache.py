"""Where compiled programs are kept, and that a process goes on where they can't be."""

from pathlib import Path

import jax
import pytest
from etils import epath

from interlcm_jax.runtime import compile_cache


@pytest.fixture(autouse=True)
def no_cache():
    """As in a user's program, no folder is set; afterwards the tests' own is again."""
    folder, least = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def test_the_folder_that_the_variable_names(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERLCM_CACHE", str(tmp_path / "cache"))
    assert compile_cache.enable() == tmp_path / "cache" / "xla"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "xla")
    # Whatever a caller names; and a folder that is set already stays.
    assert compile_cache.enable(tmp_path / "other") == tmp_path / "cache" / "xla"


def test_a_folder_of_a_run_on_disk_or_in_a_bucket(tmp_path, monkeypatch):
    monkeypatch.delenv("INTERLCM_CACHE", raising=False)
    for folder in (tmp_path / "disk", epath.Path(tmp_path) / "bucket"):
        jax.config.update("jax_compilation_cache_dir", None)
        assert compile_cache.enable(folder) == folder / "xla"
        assert jax.config.jax_compilation_cache_dir == str(folder / "xla")
        assert (folder / "xla").is_dir()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("INTERLCM_CACHE", str(tmp_path / "mine"))
    assert compile_cache.enable(tmp_path / "disk") == tmp_path / "mine" / "xla"


def test_a_user_without_a_home_goes_without(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("INTERLCM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert compile_cache.enable() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_place_where_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert compile_cache.enable(tmp_path / "file") is None
    assert jax.config.jax_compilation_cache_dir is None
