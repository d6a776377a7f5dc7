"""What `train.py` refuses, before any step: it names the field or the file, and ends with exit code 2."""

import dataclasses
from pathlib import Path

import pytest

import train
from interlcm_jax.errors import WeightsError

MINIATURE = str(Path(train.__file__).with_name("configs") / "miniature.py")


def run(monkeypatch, tmp_path, *arguments) -> int:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces").mkdir()
    try:
        return train.main(list(arguments))
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--optimizer.learning-rat", "1"], "--optimizer.learning-rat"),
        (["--steps", "many"], "--steps"),
        (["--remat", "some"], "--remat"),
        (["--batch-size", "6", "--accumulate", "4"], "batch_size is 6"),
        (["--batch-size", "6"], "batch_size is 6, but must be a multiple of the 8 devices"),
        (["--data.path", "nowhere"], "nowhere"),
        (["--autoencoder.new-decoder", "8", "8"], "autoencoder.new_decoder is (8, 8)"),
        (["--data.path", "None"], "data.path"),
        (["--data.path", "faces"], "faces"),
        (["--start.random", "None"], "start.model"),
        (["--num-processes", "2"], "--coordinator"),
    ],
)
def test_what_does_not_fit_is_named(monkeypatch, tmp_path, capsys, options, words):
    assert run(monkeypatch, tmp_path, MINIATURE, *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_missing_configuration(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path, "configs/none.py") == 2
    assert "configs/none.py: no such file" in capsys.readouterr().err


def test_a_file_that_is_no_configuration(monkeypatch, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("answer = 42")
    assert run(monkeypatch, tmp_path, str(tmp_path / "mine.py")) == 2
    assert "sets no `config`" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(Path(MINIATURE).parent.glob("*.py")), ids=lambda path: path.stem)
def test_every_configuration_is_whole(path):
    config = train.read_config(path, [])
    config.check()
    assert config.run.folder.startswith("runs/")
    assert path.read_text().removeprefix("r").startswith('"""')


def test_overrides_reach_their_fields():
    overrides = ["--optimizer.learning-rate", "0.5", "--data.degradation.blur-sigma", "1", "2", "--losses.lpips", "0"]
    config = train.read_config(Path(MINIATURE), overrides)
    assert config.optimizer.learning_rate == 0.5
    assert config.data.degradation.blur_sigma == (1, 2)
    assert config.losses.lpips == 0
    assert config.steps == 400


def test_lpips_is_only_loaded_by_stages_that_make_pictures(tmp_path):
    config = train.read_config(Path(MINIATURE), ["--losses.lpips=1", f"--losses.lpips-weights={tmp_path}"])
    mesh = train.make_mesh(config.mesh)
    with pytest.raises(WeightsError):
        train.load_perceptual(config, mesh)
    for stage in ("token_tower", "prior", "distillation"):
        assert train.load_perceptual(dataclasses.replace(config, stage=stage), mesh) is None
