import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.log import RunLog, stop_on_nonfinite
from interlcm_jax.training.samples import sample_grid

INDICES = np.array([7, 3], np.int64)


def metrics(step: int, loss: float | None = None) -> dict[str, jax.Array]:
    return {"loss": jnp.float32(step / 4 if loss is None else loss), "loss/l1": jnp.float32(2)}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def train(folder: Path, start_step: int, total_steps: int, log_every: int = 3, broken_from: float = math.inf) -> None:
    """A run, whose loss is NaN from one step on."""
    with RunLog(folder, total_steps, start_step, log_every=log_every) as log:
        for step in range(start_step + 1, total_steps + 1):
            log.add(step, metrics(step, math.nan if step >= broken_from else None), np.array([step, 10 * step]))


def test_every_few_steps_and_the_last_are_logged(tmp_path):
    train(tmp_path / "run", 0, 8)
    logged = lines(tmp_path / "run")
    assert [(line["step"], line["loss"], line["loss/l1"]) for line in logged] == [(3, 0.75, 2), (6, 1.5, 2), (8, 2, 2)]
    assert all(line["steps_per_second"] > 0 and line["time"] > 1e9 for line in logged)
    assert all(any(name.startswith("memory/") for name in line) for line in logged)


def test_a_resumed_run_logs_what_an_unbroken_one_does(tmp_path):
    train(tmp_path / "unbroken", 0, 12)
    train(tmp_path / "broken", 0, 9)
    train(tmp_path / "broken", 6, 12)
    unbroken, broken = (
        [(line["step"], line["loss"]) for line in lines(tmp_path / name)] for name in ("unbroken", "broken")
    )
    assert broken == unbroken


def test_the_loop_fetches_a_logged_step_once_the_next_is_under_way(tmp_path, monkeypatch):
    fetched, device_get = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: fetched.append(float(tree["loss"]) * 4) or device_get(tree))
    seen = []
    with RunLog(tmp_path, 20, log_every=4) as log:
        for step in range(1, 11):
            log.add(step, metrics(step), INDICES)
            seen.append(fetched[-1] if fetched else None)
    # The first step is fetched for the clock.
    assert seen == [None, 1, 1, 1, 4, 4, 4, 4, 8, 8]
    assert fetched == [1, 4, 8, 10]


def test_nothing_passes_between_host_and_device_unasked(tmp_path):
    values = [metrics(step) for step in range(1, 8)]
    with jax.transfer_guard("disallow"), RunLog(tmp_path, 7, log_every=2) as log:
        for step, value in enumerate(values, 1):
            log.add(step, value, INDICES)


def test_the_first_step_that_went_wrong_is_named_with_its_images(tmp_path):
    with pytest.raises(InterLCMError, match=r"^step 6: loss is nan, on the images of index 6, 60\."):
        train(tmp_path, 0, 20, log_every=4, broken_from=6)
    assert [line["step"] for line in lines(tmp_path)] == [4]


def test_flushing_checks_the_newest_step_so_that_no_broken_state_is_saved(tmp_path):
    log = RunLog(tmp_path, 20, log_every=10)
    log.add(1, metrics(1), INDICES)
    log.flush()
    log.add(2, metrics(2, math.inf), INDICES)
    with pytest.raises(InterLCMError, match="step 2: loss is inf"):
        log.flush()
    log.__exit__(InterLCMError)


def test_flushing_writes_the_step_that_waits(tmp_path):
    with RunLog(tmp_path, 20, log_every=2) as log:
        log.add(1, metrics(1), INDICES)
        log.add(2, metrics(2), INDICES)
        assert lines(tmp_path) == []
        log.flush()
        log.flush()
        assert [line["step"] for line in lines(tmp_path)] == [2]


def test_held_out_numbers_are_lines_after_the_step_they_are_of(tmp_path):
    with RunLog(tmp_path, 20, log_every=2) as log:
        for step in (1, 2):
            log.add(step, metrics(step), INDICES)
        log.scalars(2, {"validation/psnr": np.float32(23.5)})
    logged = [
        {name: line[name] for name in line if name in ("step", "loss", "validation/psnr")} for line in lines(tmp_path)
    ]
    assert logged == [{"step": 2, "loss": 0.5}, {"step": 2, "validation/psnr": 23.5}]


def test_held_out_numbers_are_shown(tmp_path, capsys):
    with RunLog(tmp_path, 20) as log:
        log.scalars(2, {"validation/psnr": 23.456, "validation/ssim": 0.5})
    assert "step 2/20, held-out faces: psnr 23.46, ssim 0.5\n" in capsys.readouterr().err


def test_a_pause_is_not_counted_as_the_steps_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with RunLog(tmp_path, 20, log_every=2) as log:
        for step in (1, 2, 3, 4):
            log.add(step, metrics(step), INDICES)
            now[0] += 0.5
            if step == 2:
                with log.pause("validation"):
                    now[0] += 60
    assert lines(tmp_path)[-1]["steps_per_second"] == pytest.approx(2, rel=0.5)


def test_pictures_are_files_of_their_step(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 2, 8, 8, 3), dtype=np.uint8)
    with RunLog(tmp_path, 200) as log:
        log.samples(100, *pictures)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step_00000100.png"]
    with Image.open(tmp_path / "samples" / "step_00000100.png") as image:
        np.testing.assert_array_equal(np.asarray(image), sample_grid(*pictures))


def test_progress_is_shown_where_there_is_no_terminal(tmp_path, capsys):
    train(tmp_path, 0, 6)
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in shown] == ["step 3/6", "step 6/6"]
    assert shown[-1].endswith("00:00 left, loss 1.5")


def test_another_process_writes_nothing_but_checks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    folder = tmp_path / "run"
    with RunLog(folder, 20, log_every=2) as log:
        log.add(1, metrics(1), INDICES)
        log.scalars(1, {"psnr": 1.0})
        log.samples(1, *np.zeros((3, 1, 4, 4, 3), np.uint8))
    with pytest.raises(InterLCMError, match="step 2: loss is nan"):
        train(folder, 0, 6, log_every=2, broken_from=2)
    assert not folder.exists()
    assert capsys.readouterr().err == ""


def test_numbers_that_are_not_finite_are_all_named():
    stop_on_nonfinite(1, {"loss": 0.0}, INDICES)
    with pytest.raises(InterLCMError, match=r"step 5: loss is inf, grad_norm is nan, on the images of index 7, 3\."):
        stop_on_nonfinite(5, {"loss": math.inf, "l1": 1.0, "grad_norm": math.nan}, INDICES)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InterLCMError, match="file/run: the run's folder can't be made"):
        RunLog(tmp_path / "file" / "run", 10)


def test_in_a_bucket_the_log_is_pieces_and_all_is_there_when_it_ends(tmp_path):
    bucket = epath.Path(tmp_path) / "bucket"
    with RunLog(bucket, 4, log_every=1) as log:
        for step in (1, 2, 3):
            log.add(step, metrics(step), INDICES)
        log.flush()
        # Whatever was before a checkpoint is there with it.
        assert [line["step"] for line in pieces(bucket)] == [1, 2, 3]
    with RunLog(bucket, 4, 2, log_every=1) as log:
        for step in (3, 4):
            log.add(step, metrics(step), INDICES)
        log.samples(4, *np.zeros((3, 1, 4, 4, 3), np.uint8))
    assert [(line["step"], line["loss"]) for line in pieces(bucket)] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1)]
    assert pieces(bucket)[-1]["seconds/run"] >= pieces(bucket)[1]["seconds/run"]
    assert sorted(path.name for path in bucket.iterdir()) == [
        "log-00001.jsonl",
        "log-00002.jsonl",
        "samples",
        "tensorboard",
    ]


def pieces(bucket: epath.Path) -> list[dict]:
    paths = sorted(bucket.glob("log-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def fail_after_two_steps(folder: epath.Path) -> None:
    with RunLog(folder, 4, log_every=1) as log:
        log.add(1, metrics(1), INDICES)
        log.add(2, metrics(2), INDICES)
        raise KeyError


def test_an_error_that_ends_the_run_is_the_news_and_the_log_is_copied_all_the_same(tmp_path):
    bucket = epath.Path(tmp_path) / "bucket"
    with pytest.raises(KeyError):
        fail_after_two_steps(bucket)
    assert [line["step"] for line in pieces(bucket)] == [1]


def test_the_loop_waits_for_no_more_than_the_step_before(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", lambda tree: waited.append(float(tree["loss"]) * 4))
    with RunLog(tmp_path, 20, log_every=100) as log:
        for step in (1, 2, 3, 4):
            log.add(step, metrics(step), INDICES)
            assert log.clock.now[0] == step - 1
        assert waited == [1, 2, 3]
