"""Trains InterLCM, or one of the stages that lead to it: python train.py configs/NAME.py [--section.field value ...]

The same command goes on with a run that was stopped. A file of several stages trains one after the other, each from the
model that the one before exported. Several processes (a TPU pod, Slurm, machines with GPUs) are each given the same
command, with --distributed or --coordinator, --num-processes and --process-id.
"""

import argparse
import dataclasses
import functools
import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import tyro
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from interlcm_jax.data.loader import batches
from interlcm_jax.data.sources import HQ, Source, identity, open_source
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket, resolve_paths, to_path
from interlcm_jax.runtime import compile_cache, distributed, peers
from interlcm_jax.runtime.compiler_options import jit
from interlcm_jax.runtime.watchdog import Watchdog
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.going_on import GoingOn
from interlcm_jax.training.interrupt import Interrupt
from interlcm_jax.training.log import RunLog
from interlcm_jax.training.profile import ProfileSteps
from interlcm_jax.training.release import CHECKPOINTS, trained_model
from interlcm_jax.training.run_folder import claimed
from interlcm_jax.training.sharding import make_mesh, put_batch
from interlcm_jax.training.speed import step_cost
from interlcm_jax.training.start import Start, initial_weights, load_start
from interlcm_jax.training.state import (
    TrainState,
    abstract_state,
    discriminator_weights,
    initial_state,
    split_weights,
    state_shardings,
)
from interlcm_jax.training.step import make_step
from interlcm_jax.training.tracker import Wandb
from interlcm_jax.training.validation import Validation

MODEL = "model"  # in a stage's folder: what it exports


def main(argv: list[str] | None = None) -> int:
    """Trains; returns the exit code: 0 for done, 2 for what can't be done, the configuration's for a stopped run.

    One of several processes ends with 75 where another was killed: all are to be started again.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a file of configs/; --section.field value changes a field of it")
    parser.add_argument("--only", metavar="STAGE", help="of a file of several stages, train this one")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="start a new run from another's newest checkpoint")
    parser.add_argument("--fall-back", action="store_true", help="where the newest checkpoint is damaged, take another")
    parser.add_argument("--allow-changes", action="store_true", help="go on with another seed or other images, too")
    parser.add_argument("--fields", action="store_true", help="show every field with its value and meaning, and end")
    distributed.add_arguments(parser)
    options, overrides = parser.parse_known_args(argv)
    try:
        resolve_paths(options)
        configs = read_configs(options.config, ["--help"] if options.fields else overrides, options.only)
        if options.resume and len(configs) > 1:
            raise InterLCMError(f"--resume is for one run; name a stage of {options.config} with --only")
        going_on = GoingOn(options.resume, options.fall_back, options.allow_changes)
        if distributed.join(options, "train")[1] > 1:
            peers.watch("train")
        for name, config in configs.items():
            if not (train(config, going_on) if name is None else train_stage(name, config, going_on)):
                return config.run.exit_code_on_preemption
    except Exception as error:
        return peers.end("train", error)
    return 0


def read_configs(path: Path, overrides: list[str], only: str | None = None) -> dict[str | None, TrainConfig]:
    """The configurations of a file with the command line's changes, by the stage's name; None for a file of one.

    Args:
        path: a Python file that sets `config`, a TrainConfig, or `stages`, a dictionary of them in order.
        overrides: like `--steps 10`; each stage takes all of them.
        only: the stage that is wanted; None: all.

    Raises:
        InterLCMError: the file isn't there or isn't a configuration, or fields don't fit; each is named.
        SystemExit: an override names no field, or has the wrong type; the message names it.
    """
    if not path.is_file():
        raise InterLCMError(f"{path}: no such file; the configurations are in configs/")
    found = runpy.run_path(str(path))
    stages = found.get("stages", {None: found.get("config")})
    if not all(isinstance(config, TrainConfig) for config in stages.values()):
        raise InterLCMError(f"{path}: sets neither `config`, a TrainConfig, nor `stages`, a dictionary of them")
    if only is not None and only not in stages:
        raise InterLCMError(f"{path}: has no stage {only}; it has {', '.join(filter(None, stages)) or 'one, unnamed'}")
    configs = {name: _changed(path, name, stages[name], overrides) for name in ([only] if only else stages)}
    if len({config.run.folder for config in configs.values()}) < len(configs):
        raise InterLCMError("run.folder is the same for several stages, but must be each one's own; see --only")
    return configs


def _changed(path: Path, name: str | None, config: TrainConfig, overrides: list[str]) -> TrainConfig:
    prog = " ".join(filter(None, ["train.py", str(path), name and f"--only {name}"]))
    # Each stage has options of its own: which one it is the file says, not the command line.
    settings = (tyro.conf.AvoidSubcommands,)
    config = tyro.cli(TrainConfig, default=config, args=overrides, prog=prog, description=" ", config=settings)
    config.check()
    return config


def train_stage(name: str, config: TrainConfig, going_on: GoingOn) -> bool:
    """Trains one of several stages and exports its model for the next; tells whether it is done.

    Raises:
        InterLCMError: as `train`; or the model can't be written.
    """
    run, main_process = to_path(config.run.folder), jax.process_index() == 0
    model = run / MODEL
    if model.is_dir():
        if main_process:
            print(f"{name}: done, in {model}; to train it again, move {run} away", file=sys.stderr)
        return True
    if not train(config, going_on):
        return False
    # Each process reads the checkpoint, for Orbax waits for all of them; one writes.
    trained = trained_model(run)
    if main_process:
        trained.save_pretrained(model)
        print(f"{name}: exported to {model}", file=sys.stderr)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"exported {model}")
    return True


def train(config: TrainConfig, going_on: GoingOn) -> bool:
    """Runs a configuration to its end, or to the signal that stops it; tells whether it is at its end.

    Raises:
        InterLCMError: something isn't there or doesn't fit; another training is at work in the folder; a loss isn't
            finite; a checkpoint can't be written.
    """
    folder, main_process = to_path(config.run.folder), jax.process_index() == 0
    # Of several processes the first alone writes programs, where all can read them: they see one run's folder.
    compile_cache.enable(folder if jax.process_count() > 1 or in_bucket(folder) else None)
    mesh = make_mesh(config.mesh)
    if config.batch_size % mesh.size:
        raise InterLCMError(f"batch_size is {config.batch_size}, but must be a multiple of the {mesh.size} devices")
    source = open_source(
        _given(config.data.path, "data.path"), config.data.image_size, config.data.paired, config.data.local_cache
    )
    with (
        jax.set_mesh(mesh),
        claimed(folder),
        Checkpoints(folder / CHECKPOINTS, keep=config.run.keep, best="psnr") as checkpoints,
    ):
        start = measured(config, load_start(config, mesh), source)
        saved = {"train": config.to_json(), "model": start.model.to_json(), "records": identity(source)}
        state, position = first_state(config, start, mesh, checkpoints, saved, going_on)
        frozen = split_weights(start.networks, config.stage.trained)[1]
        validate = make_validation(config, start, mesh)
        program = compile_step(config, start, state, mesh)
        step = first = int(state.step)
        scores: dict[str, float] | None = None
        if main_process:
            done = f" from step {first}" if first else ""
            what = f"{config.steps} steps{done} on {mesh.size} devices; the first one compiles"
            nothing = f"at step {step} of {config.steps} already: nothing to do"
            print(f"{folder}: {what if step < config.steps else nothing}", file=sys.stderr)
        images = batches(
            source,
            config.data,
            seed=config.seed,
            batch_size=config.batch_size,
            start=position,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        profile_from = config.run.profile_from
        tracker = functools.partial(Wandb, folder, saved, first) if config.run.tracker else None
        with (
            RunLog(folder, config.steps, first, log_every=config.run.log_every, tracker=tracker) as log,
            Watchdog("train", log.clock),
            ProfileSteps(log.local / "profile", profile_from, config.run.profile_steps) as profile,
            Interrupt() as interrupt,
        ):
            metrics, stopped = {}, False
            while step < config.steps and not stopped:
                with log.clock.at("data"):
                    batch = next(images)
                indices = batch.pop("index")
                given = (state, frozen, start.judges, put_batch(batch, mesh))
                log.cost = log.cost or step_cost(program, given, config.batch_size, mesh.size)
                with profile.step(step, metrics):
                    state, metrics = program(*given)
                step, position = step + 1, position + 1
                log.add(step, metrics, indices)
                stopped = interrupt.requested()
                due = step % config.run.checkpoint_every == 0 or step == config.steps
                # Each checkpoint that is due has a score, so that the best one is kept.
                if validate and (step % config.validation.every == 0 or due):
                    with log.pause("validation"):
                        found = validate(state.ema, frozen)
                    scores = found.scores
                    log.scalars(step, {f"validation/{name}": value for name, value in scores.items()})
                    log.samples(step, found.lq, found.restored, found.hq)
                if due or stopped:
                    # Checked before: a state that a broken loss went into is never saved.
                    with log.pause("checkpoint"):
                        checkpoints.save(step, state, config=saved, position=position, metrics=scores)
                scores = None
            images.close()
            checkpoints.wait()
    if main_process:
        what = "done" if step >= config.steps else "stopped; the same command goes on"
        print(f"{folder}: {what} at step {step}, saved in {folder / CHECKPOINTS / str(step)}", file=sys.stderr)
    return step >= config.steps and not stopped


def measured(config: TrainConfig, start: Start, source: Source) -> Start:
    """The start with what the stage measures on the training faces."""
    faces = (source[i][HQ] for i in range(len(source)))
    return dataclasses.replace(start, model=config.stage.measured(start.networks, start.model, faces))


def first_state(
    config: TrainConfig, start: Start, mesh: Mesh, checkpoints: Checkpoints, saved: dict[str, Any], going_on: GoingOn
) -> tuple[TrainState, int]:
    """The state to go on from, and the position in the data: the run's own, or another's, or at the beginning."""
    target = abstract_state(start.networks, start.discriminator, config.optimizer, mesh, config.stage.trained)
    restored = going_on.restore(target, checkpoints, saved)
    if restored is None:
        return new_state(config, start, mesh), 0
    # Batches of another size: on from the same image, or some before it.
    return restored.state, restored.position * restored.config["train"]["batch_size"] // config.batch_size


def new_state(config: TrainConfig, start: Start, mesh: Mesh) -> TrainState:
    """The state before the first step, each array made where it lies."""
    params = initial_weights(config, start, mesh)
    begin = functools.partial(initial_state, config=config.optimizer)
    shapes = abstract_state(start.networks, start.discriminator, config.optimizer, mesh, config.stage.trained)
    begin = jit(begin, out_shardings=state_shardings(shapes, mesh))
    return begin(params, discriminator_weights(start.discriminator))


def compile_step(config: TrainConfig, start: Start, state: TrainState, mesh: Mesh) -> Any:
    """The training step as one program, which takes its state over from the step before."""
    step = make_step(config, start.model, start.networks, start.discriminator)
    placed = (state_shardings(state, mesh), NamedSharding(mesh, PartitionSpec()))
    return jit(step, donate_argnums=0, out_shardings=placed)


def make_validation(config: TrainConfig, start: Start, mesh: Mesh) -> Validation | None:
    """The held-out faces' pictures and scores; None where the configuration names none."""
    held_out, losses = config.validation, config.stage.losses
    if held_out.path is None:
        return None
    source = open_source(held_out.path, config.data.image_size, paired=True)
    # Random VGG weights give no score.
    perceptual = None if losses is None or losses.lpips_weights == "random" else start.judges.lpips
    return Validation(
        config.stage, source, held_out.count, held_out.grid, start.model, start.networks, perceptual, mesh
    )


def _given(value: str | None, field: str) -> str:
    if value is None:
        raise InterLCMError(f"{field} isn't given: the images to train on")
    return value


if __name__ == "__main__":
    code = main()
    if code == peers.FAILED:
        # Threads that write to a bucket which doesn't answer would hold the process for a quarter of an hour.
        peers.leave(code)
    sys.exit(code)
