"""What `train.py` reads from a file and the command line, and what it refuses before any step: exit code 2, by name."""

import dataclasses
from pathlib import Path

import pytest

import train
from interlcm_jax.errors import WeightsError
from interlcm_jax.training.stages import Autoencoder, Distillation, ImageEncoder, Prior, Restoration, WarmUp
from interlcm_jax.training.start import load_judges

CONFIGS = Path(train.__file__).with_name("configs")
SMOKE, SMALL = str(CONFIGS / "smoke.py"), str(CONFIGS / "small.py")


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
        (["--dtype", "float8"], "--dtype"),
        (["--batch-size", "6", "--accumulate", "4"], "batch_size is 6"),
        (["--batch-size", "6"], "batch_size is 6, but must be a multiple of the 8 devices"),
        (["--validation.count", "0", "--validation.grid", "0"], "validation.count is 0, but must be at least 1"),
        (["--validation.grid", "0"], "validation.grid is 0, but must be at least 1"),
        (["--run.exit-code-on-preemption", "256"], "run.exit_code_on_preemption is 256, but must be from 0 to 255"),
        (["--mesh.slices", "3"], "mesh.slices 3 doesn't divide the 8 devices"),
        (["--stage.draws", "2"], "--stage.draws"),
        (["--stage.losses.ssim", "-1"], "ssim -1.0"),
        (["--data.path", "nowhere"], "nowhere"),
        (["--data.path", "None"], "data.path"),
        (["--data.path", "faces"], "faces"),
        (["--start.random", "None"], "start.model"),
        (["--num-processes", "2"], "--coordinator"),
        (["--only", "prior"], "has no stage prior; it has one, unnamed"),
    ],
)
def test_what_does_not_fit_is_named(monkeypatch, tmp_path, capsys, options, words):
    assert run(monkeypatch, tmp_path, SMOKE, *options) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stage.losses.l1", "2"], "small.py --only image_encoder"),
        (["--only", "prior", "--stage.draws", "0"], "stage.draws is 0, but must be at least 1"),
        (["--only", "tower"], "has no stage tower; it has autoencoder, image_encoder, prior"),
        (["--run.folder", "runs/mine"], "run.folder is the same for several stages"),
        (["--resume", "runs/other"], "name a stage"),
    ],
)
def test_what_does_not_fit_a_stage_is_named(monkeypatch, tmp_path, capsys, options, words):
    assert run(monkeypatch, tmp_path, SMALL, *options) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_missing_configuration(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path, "configs/none.py") == 2
    assert "configs/none.py: no such file" in capsys.readouterr().err


def test_a_file_that_is_no_configuration(monkeypatch, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("answer = 42")
    assert run(monkeypatch, tmp_path, str(tmp_path / "mine.py")) == 2
    assert "sets neither `config`" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_configuration_is_whole(path):
    for config in train.read_configs(path, []).values():
        assert config.run.folder.startswith("runs/")


def test_the_small_models_stages_are_in_order_and_each_starts_from_the_one_before():
    configs = train.read_configs(Path(SMALL), [])
    kinds = [type(config.stage) for config in configs.values()]
    assert kinds == [Autoencoder, ImageEncoder, Prior, Distillation, WarmUp, Restoration, Restoration]
    starts = [config.start.model for config in configs.values()]
    assert starts == [None, *(f"{config.run.folder}/{train.MODEL}" for config in list(configs.values())[:-1])]
    losses = [config.stage.losses for config in configs.values() if config.stage.losses]
    assert len(losses) == 3
    assert not any(each.lpips for each in losses)  # whose weights are a download


def test_overrides_reach_their_fields():
    blur, losses = ["--data.degradation.blur-sigma", "1", "2"], ["--stage.losses.lpips", "0"]
    [config] = train.read_configs(Path(SMOKE), ["--optimizer.learning-rate", "0.5", *blur, *losses]).values()
    assert config.optimizer.learning_rate == 0.5
    assert config.data.degradation.blur_sigma == (1, 2)
    assert config.stage.losses.lpips == 0
    assert config.stage.losses.l1 == config.stage.losses.discriminator.num_layers - 1 == 1
    assert config.steps == 400


def test_overrides_reach_every_stage_and_keep_its_kind():
    configs = train.read_configs(Path(SMALL), ["--steps", "3"])
    assert {config.steps for config in configs.values()} == {3}
    prior = train.read_configs(Path(SMALL), ["--stage.draws", "5"], "prior")["prior"]
    assert prior.stage == Prior(draws=5)


def test_lpips_is_only_loaded_where_it_has_a_weight(tmp_path):
    overrides = ["--stage.losses.lpips=1", f"--stage.losses.lpips-weights={tmp_path}"]
    [config] = train.read_configs(Path(SMOKE), overrides).values()
    mesh = train.make_mesh(config.mesh)
    with pytest.raises(WeightsError):
        load_judges(config, mesh)
    losses = dataclasses.replace(config.stage.losses, lpips=0.0)
    assert load_judges(dataclasses.replace(config, stage=Restoration(losses=losses)), mesh).lpips is None


@pytest.mark.parametrize(("finished", "code"), [(True, 0), (False, 75)])
def test_a_stopped_run_ends_with_the_exit_code_that_is_asked_for(monkeypatch, finished, code):
    monkeypatch.setattr(train, "train", lambda config, going_on: finished)
    assert train.main([SMOKE, "--run.exit-code-on-preemption", "75"]) == code
    assert train.main([SMOKE]) == 0
