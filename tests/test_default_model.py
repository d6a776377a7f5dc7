"""Which model runs where none is named, and what is said about it."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

from interlcm_jax import default_model as module
from interlcm_jax.default_model import default_model, describe_model, find_model, make_default
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.hub import matching
from interlcm_jax.model_folder import ModelConfig, write_config


def put(folder, task="restoration", age=0, **settings):
    """A model folder made `age` seconds ago, without weights."""
    folder.mkdir(parents=True)
    write_config(folder, dataclasses.replace(ModelConfig.miniature(), task=task, **settings))
    os.utime(folder / "config.json", (10**9 - age, 10**9 - age))
    return folder


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The folder of downloaded models."""
    monkeypatch.setenv("INTERLCM_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(module, "SMALL", tmp_path / "package" / "small")
    return tmp_path / "models"


def test_a_downloaded_model_comes_before_the_small_one(models):
    small = put(module.SMALL)
    assert default_model() == small
    full = put(models / "restoration_3step", age=100)
    assert default_model() == full
    assert find_model() == full


def test_the_newest_model_of_the_task(models):
    first, second = put(models / "restoration_3step", age=200), put(models / "restoration_1step", age=100)
    colors = put(models / "colorization_1step", "colorization")
    # What a conversion is at work on is no model yet.
    put(models / ".restoration_3step.0123.partial")
    assert (default_model(), default_model("colorization")) == (second, colors)
    make_default(first)
    assert default_model() == first


def test_without_a_model_the_message_says_how_to_get_one(models):
    with pytest.raises(InterLCMError, match=r"^no model for restoration is there: .* interlcm download, or .* convert"):
        default_model()
    put(module.SMALL)
    with pytest.raises(InterLCMError, match="interlcm download --task inpainting"):
        default_model("inpainting")
    with pytest.raises(InterLCMError, match="task 'sharpen' doesn't exist"):
        default_model("sharpen")


@pytest.mark.parametrize("config", ["{", "[]", '{"format": 1, "weights": ["x"]}', "[" * 100_000])
def test_a_broken_model_stands_in_no_others_way(models, caplog, config):
    put(models / "restoration_3step")
    (models / "restoration_3step" / "config.json").write_text(config)
    small = put(module.SMALL)
    assert default_model() == small
    assert re.search(r"a model is passed over: .*restoration_3step/config\.json", caplog.text)


def test_a_user_without_a_home_has_the_small_one(models, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("INTERLCM_MODELS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    put(module.SMALL)
    assert default_model() == module.SMALL
    with pytest.raises(InterLCMError, match="absent: no such file or folder"):
        find_model("absent")


def test_names(models, tmp_path, monkeypatch):
    named, own = put(models / "restoration_1step"), put(tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")
    assert find_model("restoration_1step") == find_model(Path("restoration_1step")) == named
    assert find_model("mine") == Path("mine")
    assert find_model(own) == own
    # A path comes before a name.
    put(tmp_path / "here" / "restoration_1step")
    assert find_model("restoration_1step") == Path("restoration_1step")
    with pytest.raises(InterLCMError, match="absent: no such file or folder"):
        find_model("absent")
    with pytest.raises(InterLCMError, match="HF_HUB_OFFLINE"):
        find_model("owner/name", select=matching("config.json"))


def test_a_line_on_the_model(models):
    licenses = {
        "unet": {"origin": "a", "license": "MIT"},
        "vae": {"origin": "b", "license": "MIT"},
        "visual_encoder": {"origin": "c", "license": "non-commercial"},
    }
    config = dataclasses.replace(ModelConfig.miniature(), weights=licenses)
    assert describe_model(models / "restoration_3step", config) == (
        f"model: restoration_3step ({models}), restoration at 64 x 64 px, 3 network calls; "
        "licenses: MIT (unet, vae), non-commercial (visual_encoder)"
    )
    small = dataclasses.replace(config, weights={"unet": {"license": "Apache-2.0"}}, num_network_calls=1)
    assert describe_model(module.SMALL, small) == (
        "model: the small one of the package, restoration at 64 x 64 px, 1 network call; license: Apache-2.0; get the "
        "full-size model (512 x 512 px) with interlcm download"
    )
    assert "license: not stated" in describe_model(models / "mine", ModelConfig.miniature())
    steering = dataclasses.replace(config, weights={"unet": {"license": "\x1b[2J"}})
    assert r"license: \x1b[2J" in describe_model(models / "mine", steering)
