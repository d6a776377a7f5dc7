"""Trains InterLCM, or one of the stages that lead to it: python train.py configs/NAME.py [--section.field value ...]

The same command goes on with a run that was stopped. Several processes (a TPU pod, Slurm, machines with GPUs) are each
given the same command, with --distributed or --coordinator, --num-processes and --process-id.
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
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from interlcm_jax.convert import lpips
from interlcm_jax.data.loader import batches
from interlcm_jax.data.sources import HQ, open_source
from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.lpips import Params as LPIPSParams
from interlcm_jax.models.lpips import random_params
from interlcm_jax.runtime import compile_cache, distributed
from interlcm_jax.runtime.compiler_options import compiler_options
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.interrupt import Interrupt
from interlcm_jax.training.log import RunLog
from interlcm_jax.training.profile import ProfileSteps
from interlcm_jax.training.release import CHECKPOINTS
from interlcm_jax.training.sharding import make_mesh, put_batch
from interlcm_jax.training.stages import stage_of
from interlcm_jax.training.start import Start, initial_weights, load_start, with_latent_scale
from interlcm_jax.training.state import (
    TrainState,
    abstract_state,
    discriminator_weights,
    initial_state,
    split_weights,
    state_shardings,
)
from interlcm_jax.training.step import make_step
from interlcm_jax.training.validation import Validation

SCALE_FACES = 64  # by which the prior's latents are scaled


def main(argv: list[str] | None = None) -> int:
    """Trains; returns the exit code: 0 for done or stopped well, 2 for what can't be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a file of configs/; --section.field value changes a field of it")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="start a new run from another's newest checkpoint")
    parser.add_argument("--fields", action="store_true", help="show every field with its value and meaning, and end")
    distributed.add_arguments(parser)
    options, overrides = parser.parse_known_args(argv)
    try:
        config = read_config(options.config, ["--help"] if options.fields else overrides)
        distributed.join(options)
        train(config, options.resume)
    except InterLCMError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    return 0


def read_config(path: Path, overrides: list[str]) -> TrainConfig:
    """The configuration of a file with the command line's changes.

    Raises:
        InterLCMError: the file isn't there or isn't a configuration, or fields don't fit; each is named.
        SystemExit: an override names no field, or has the wrong type; the message names it.
    """
    if not path.is_file():
        raise InterLCMError(f"{path}: no such file; the configurations are in configs/")
    found = runpy.run_path(str(path)).get("config")
    if not isinstance(found, TrainConfig):
        raise InterLCMError(f"{path}: sets no `config`, a TrainConfig")
    config = tyro.cli(TrainConfig, default=found, args=overrides, prog=f"train.py {path}", description=" ")
    config.check()
    return config


def train(config: TrainConfig, resume: Path | None = None) -> None:
    """Runs a configuration to its end, or to the signal that stops it.

    Raises:
        InterLCMError: something isn't there or doesn't fit; a loss isn't finite; a checkpoint can't be written.
    """
    compile_cache.enable()
    folder, main_process = Path(config.run.folder), jax.process_index() == 0
    mesh = make_mesh(config.mesh)
    if config.batch_size % mesh.size:
        raise InterLCMError(f"batch_size is {config.batch_size}, but must be a multiple of the {mesh.size} devices")
    source = open_source(_given(config.data.path, "data.path"), config.data.image_size, config.data.paired)
    with jax.set_mesh(mesh), Checkpoints(folder / CHECKPOINTS, keep=config.run.keep, best="psnr") as checkpoints:
        start = load_start(config, mesh)
        if config.stage == "prior" and config.prior.scale_latents:
            start = with_latent_scale(start, (source[i][HQ] for i in range(min(SCALE_FACES, len(source)))))
        state, position = first_state(config, start, mesh, checkpoints, resume)
        frozen = split_weights(start.networks, stage_of(config).trained)[1]
        perceptual = load_perceptual(config, mesh)
        validate = make_validation(config, start, perceptual, mesh)
        program = compile_step(config, start, state, mesh)
        step = first = int(state.step)
        scores: dict[str, float] | None = None
        if main_process:
            done = f" from step {first}" if first else ""
            print(
                f"{folder}: {config.steps} steps{done} on {mesh.size} devices; the first one compiles", file=sys.stderr
            )
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
        with (
            RunLog(folder, config.steps, first, log_every=config.run.log_every) as log,
            ProfileSteps(folder / "profile", profile_from, config.run.profile_steps) as profile,
            Interrupt() as interrupt,
        ):
            metrics, stopped = {}, False
            while step < config.steps and not stopped:
                batch = next(images)
                indices = batch.pop("index")
                with profile.step(step, metrics):
                    state, metrics = program(state, frozen, perceptual, put_batch(batch, mesh))
                step, position = step + 1, position + 1
                log.add(step, metrics, indices)
                stopped, last = interrupt.requested(), step == config.steps
                if validate and (step % config.validation.every == 0 or last):
                    found = validate(state.ema, frozen)
                    scores = found.scores
                    log.scalars(step, {f"validation/{name}": value for name, value in scores.items()})
                    log.samples(step, found.lq, found.restored, found.hq)
                if step % config.run.checkpoint_every == 0 or stopped or last:
                    # Checked before: a state that a broken loss went into is never saved.
                    log.flush()
                    saved = {"train": dataclasses.asdict(config), "model": start.model.to_json()}
                    checkpoints.save(step, state, config=saved, position=position, metrics=scores)
                scores = None
            images.close()
            checkpoints.wait()
    if main_process:
        what = "done" if step == config.steps else "stopped; the same command goes on"
        print(f"{folder}: {what} at step {step}, saved in {folder / CHECKPOINTS / str(step)}", file=sys.stderr)


def first_state(
    config: TrainConfig, start: Start, mesh: Mesh, checkpoints: Checkpoints, resume: Path | None
) -> tuple[TrainState, int]:
    """The state to go on from, and the position in the data: the run's own, or `resume`'s, or at the beginning."""
    target = abstract_state(start.networks, start.discriminator, config.optimizer, mesh, stage_of(config).trained)
    if checkpoints.latest() is not None:
        restored = checkpoints.restore(target)
        return restored.state, restored.position
    if resume is not None:
        with Checkpoints.open(resume / CHECKPOINTS) as others:
            restored = others.restore(target)
        return restored.state, restored.position
    return new_state(config, start, mesh), 0


def new_state(config: TrainConfig, start: Start, mesh: Mesh) -> TrainState:
    """The state before the first step, each array made where it lies."""
    params = initial_weights(config, start, mesh)
    begin = functools.partial(initial_state, config=config.optimizer)
    shapes = abstract_state(start.networks, start.discriminator, config.optimizer, mesh, stage_of(config).trained)
    begin = jax.jit(begin, out_shardings=state_shardings(shapes, mesh))
    return begin(params, *discriminator_weights(start.discriminator))


def compile_step(config: TrainConfig, start: Start, state: TrainState, mesh: Mesh) -> Any:
    """The training step as one program, which takes its state over from the step before."""
    step = make_step(config, start.model, start.networks, start.discriminator)
    placed = (state_shardings(state, mesh), NamedSharding(mesh, PartitionSpec()))
    options = compiler_options(mesh.devices.flat[0].platform)
    return jax.jit(step, donate_argnums=0, out_shardings=placed, compiler_options=options)


def load_perceptual(config: TrainConfig, mesh: Mesh) -> LPIPSParams | None:
    """LPIPS' weights on every device; None where that loss has no weight, or the stage makes no pictures to judge."""
    if not config.losses.lpips or stage_of(config).generate is None:
        return None
    source = config.losses.lpips_weights
    weights = random_params(config.seed) if source == "random" else lpips.load(source)
    return jax.device_put(weights, NamedSharding(mesh, PartitionSpec()))


def make_validation(config: TrainConfig, start: Start, perceptual: LPIPSParams | None, mesh: Mesh) -> Validation | None:
    """The held-out faces' restoration; None where the configuration names none. Random VGG weights give no score."""
    held_out = config.validation
    if held_out.path is None:
        return None
    source = open_source(held_out.path, config.data.image_size, paired=True)
    weights = None if config.losses.lpips_weights == "random" else perceptual
    stage = stage_of(config)
    return Validation(stage, source, held_out.count, held_out.grid, start.model, start.networks, weights, mesh)


def _given(value: str | None, field: str) -> str:
    if value is None:
        raise InterLCMError(f"{field} isn't given: the images to train on")
    return value


if __name__ == "__main__":
    sys.exit(main())
