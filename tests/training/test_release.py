"""From a run's checkpoint to a model folder and to PyTorch's files."""

import dataclasses

import jax
import numpy as np
import pytest

from interlcm_jax import InterLCM
from interlcm_jax.cli.main import main
from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.weights import values
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.config import MeshConfig, StartConfig, TrainConfig
from interlcm_jax.training.losses import LossConfig
from interlcm_jax.training.release import CHECKPOINTS, trained_model
from interlcm_jax.training.sharding import make_mesh
from interlcm_jax.training.stages import ImageEncoder, Restoration
from interlcm_jax.training.start import initial_weights, load_start
from interlcm_jax.training.state import initial_state, split_weights

CONFIG = TrainConfig(
    stage=Restoration(losses=LossConfig(lpips=0.0, adversarial=0.0)),
    start=StartConfig(random="miniature", num_network_calls=1, task="colorization"),
    dtype="bfloat16",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a checkpoint after whose start the weights moved, and the frozen networks it started from."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    # Version 0.1 kept the stage's name alone, and fields that are no more.
    old = CONFIG.to_json() | {"stage": "restoration", "autoencoder": {"new_decoder": None}}
    old["start"] = old["start"] | {"without": []}
    lacking = old | {"start": old["start"] | {"without": ["visual_encoder"]}}
    more = (folder.with_name("old"), old), (folder.with_name("lacking"), lacking)
    return folder, *save_run(folder, CONFIG, *more)


def save_run(folder, config, *more):
    """Saves the checkpoint of step 7; and the same with other configurations, each (folder, JSON values)."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    start = load_start(dataclasses.replace(config, dtype="float32"), mesh)
    params = initial_weights(config, start, mesh)
    state = initial_state(params, None, config.optimizer)
    state = dataclasses.replace(state, ema=jax.tree.map(lambda weight: weight + 1, params))
    for path, saved in ((folder, config.to_json()), *more):
        with Checkpoints(path / CHECKPOINTS) as checkpoints:
            checkpoints.save(7, state, config={"train": saved, "model": start.model.to_json()}, position=7)
            checkpoints.wait()
    return params, split_weights(start.networks, config.stage.trained)[1]


@pytest.mark.parametrize("ema", [True, False])
def test_the_model_has_the_trained_weights_and_the_frozen_ones(run, ema):
    folder, params, frozen = run
    model = trained_model(folder, ema=ema, license="CC BY-NC-SA 4.0")
    trained, others = split_weights(model.networks)
    for path, weight in params.items():
        np.testing.assert_array_equal(trained[path], weight + 1 if ema else weight, err_msg=path)
    for path, weight in frozen.items():
        np.testing.assert_array_equal(others[path], weight, err_msg=path)
    assert (model.config.num_network_calls, model.config.task, model.config.color_fix) == (1, "colorization", "none")
    origin = "mine, step 7, EMA" if ema else "mine, step 7"
    assert model.config.weights["visual_encoder"] == {"origin": origin, "license": "CC BY-NC-SA 4.0"}


def test_a_stages_own_networks_are_left_out(tmp_path):
    params, frozen = save_run(tmp_path / "mine", dataclasses.replace(CONFIG, stage=ImageEncoder()))
    assert any(path.startswith("head.") for path in params)
    weights = values(trained_model(tmp_path / "mine").networks)
    assert weights.keys() == frozen.keys() | {path for path in params if not path.startswith("head.")}
    moved = [path for path in params if path in weights and np.array_equal(weights[path], params[path] + 1)]
    assert len(moved) == len([path for path in params if path.startswith("clip_vision.")]) > 10


def test_a_run_that_left_networks_out_is_refused(run):
    with pytest.raises(InterLCMError, match=r"lacking: a run of version 0\.1 that left out visual_encoder"):
        trained_model(run[0].with_name("lacking"))


def test_a_run_of_another_version_is_read_as_far_as_it_counts(run):
    ours, reference = (values(trained_model(folder).networks) for folder in (run[0].with_name("old"), run[0]))
    assert [path for path in reference if not np.array_equal(ours[path], reference[path])] == []


def test_the_command_makes_a_model_folder(run, tmp_path, capsys):
    folder, params, _ = run
    assert main(["export", str(folder), "--model-folder", "-o", str(tmp_path / "model")]) == 0
    assert "a model of 1 network calls" in capsys.readouterr().out
    path = "visual_encoder.blocks.0.kernel"
    trained, _ = split_weights(InterLCM.from_pretrained(tmp_path / "model").networks)
    np.testing.assert_array_equal(trained[path], params[path] + 1)


def test_a_model_folder_in_half_precision(run, tmp_path):
    from safetensors.numpy import load_file

    folder, params, _ = run
    assert main(["export", str(folder), "--model-folder", "--dtype", "float16", "-o", str(tmp_path / "model")]) == 0
    stored = load_file(tmp_path / "model" / "visual_encoder.safetensors")
    assert {str(weight.dtype) for weight in stored.values()} == {"float16"}
    trained, _ = split_weights(InterLCM.from_pretrained(tmp_path / "model").networks)
    for path, weight in params.items():
        assert trained[path].dtype == "float32"
        np.testing.assert_allclose(trained[path], weight + 1, rtol=2**-11, err_msg=path)


def test_a_dtype_is_of_a_model_folder(run, tmp_path, capsys):
    assert main(["export", str(run[0]), "--dtype", "float16", "-o", str(tmp_path / "out")]) == 2
    assert "--dtype is for --model-folder" in capsys.readouterr().err


def test_the_command_writes_pytorchs_files(run, tmp_path):
    pytest.importorskip("torch")
    assert main(["export", str(run[0]), "--raw", "--step", "7", "-o", str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"lcm", "clip", "interlcm.json", "visual_encoder.pth", "spatial_encoder.pth"}


def test_what_is_not_there_is_named(run, tmp_path, capsys):
    with pytest.raises(InterLCMError, match="no checkpoint of step 9; it has 7"):
        trained_model(run[0], 9)
    assert main(["export", str(tmp_path), "--model-folder", "-o", str(tmp_path / "out")]) == 2
    assert "no training run" in capsys.readouterr().err
