"""Training steps against the same steps written in PyTorch: losses, gradients, weights, averages, discriminator."""

import dataclasses
import functools
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import torch
from torch import Tensor

from interlcm_jax.convert import clip_vision, controlnet, discriminator, unet, vae, visual_encoder
from interlcm_jax.convert.rules import Table, to_jax
from interlcm_jax.files.safetensors import from_array
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from interlcm_jax.models.weights import values, with_values
from interlcm_jax.restoration import Networks, restore
from interlcm_jax.training.losses import Judges
from interlcm_jax.training.stage import stream
from interlcm_jax.training.state import discriminator_weights, initial_state, split_weights
from interlcm_jax.training.step import make_step
from tests.parity.bridge import abstract, load, nhwc
from tests.parity.test_lpips import converted
from tests.parity.training_twin import BATCH, CONFIG, MODEL, STEPS, Twin, make_twin

LOSS, GRADIENT, WEIGHTS = 1e-5, 1e-4, 1e-4  # relative, of gradients to the tensor's largest; absolute
# Of the norm of all changes: Adam turns a gradient that is rounding alone, of single elements, into a whole step.
CHANGE = 1e-2
# Attention's key biases shift all scores of a query alike: their gradient is rounding, which Adam scales to full steps.
ZERO_GRADIENT = r"visual_encoder\..*\.k\.bias"
TABLES = {
    "unet": unet.TABLE,
    "vae": vae.TABLE,
    "clip_vision": clip_vision.TABLE,
    "visual_encoder": visual_encoder.TABLE,
    "spatial_encoder": controlnet.TABLE,
}


@dataclasses.dataclass
class Side:
    """One side at one step: losses, gradients (ours of the first step only) and weights by path."""

    losses: dict
    grads: dict[str, np.ndarray]
    params: dict[str, np.ndarray]
    ema: dict[str, np.ndarray]
    discriminator: dict[str, np.ndarray]


def nchw(images: jax.Array) -> Tensor:
    return torch.from_numpy(np.array(images).transpose(0, 3, 1, 2))


def on_paths(tensors: dict[str, torch.Tensor], table: Table, paths: list[str], prefix: str = "") -> dict:
    """PyTorch's tensors, running statistics left out, by JAX's paths and in its layout."""
    shapes = {path.removeprefix(prefix): paths[path] for path in paths if path.startswith(prefix)}
    source = {key: from_array(t.detach().numpy().copy(), Path("test")) for key, t in tensors.items()}
    optional = dataclasses.replace(table, rules=tuple(dataclasses.replace(r, optional=True) for r in table.rules))
    return {prefix + path: t.read() for path, t in to_jax(source, shapes, optional, Path("test")).items()}


def encoders(networks: dict, paths: dict, what=lambda parameter: parameter) -> dict[str, np.ndarray]:
    """Of both encoders' parameters, by path."""
    found = {}
    for name, network in networks.items():
        tensors = {key: what(parameter) for key, parameter in network.named_parameters()}
        found |= on_paths(tensors, TABLES[name], paths, f"{name}.")
    return found


@pytest.fixture(scope="module")
def twin() -> Twin:
    return make_twin()


@pytest.fixture(scope="module")
def sides(twin) -> list[tuple[Side, Side]]:
    """(ours, theirs) after each step, on the same random pictures."""
    networks, release = abstract(Networks, MODEL), twin.release
    sources = {**twin.trained, "unet": release.unet, "vae": release.vae, "clip_vision": release.clip_vision}
    for name, network in sources.items():
        load(getattr(networks, name), network.state_dict(), TABLES[name])
    judge = abstract(PatchDiscriminator, DiscriminatorConfig.miniature())
    judge = load(judge, twin.discriminator.state_dict(), discriminator.TABLE)
    judges = Judges(lpips=converted(twin.lpips.state_dict()))
    params, frozen = split_weights(networks)
    state = initial_state(params, discriminator_weights(judge), CONFIG.optimizer)
    whole = make_step(CONFIG, MODEL, networks, judge)

    @jax.jit
    def step(state, frozen, judges, batch):
        """And its noise and images: in a program of their own these round otherwise on some processors."""
        key = functools.partial(stream, CONFIG.seed, step=state.step)
        noise = CONFIG.stage.draw(key, MODEL, (BATCH, 64, 64, 3))["noise"]
        filled = with_values(networks, {**frozen, **state.params})
        restored = restore(filled, MODEL, to_float(batch["lq"]), noise.swapaxes(0, 1))
        return *whole(state, frozen, judges, batch), noise, restored

    # Pictures of other seeds (4) have a value so near a ReLU's corner that rounding moves it to the other side, which
    # all gradients show by 1.5e-4.
    generator, record = torch.Generator().manual_seed(6), []
    for number in range(STEPS):
        pictures = {n: torch.randint(0, 256, (BATCH, 3, 64, 64), generator=generator) for n in ("lq", "hq")}
        batch = {name: nhwc(x.to(torch.uint8)) for name, x in pictures.items()}
        state, metrics, noise, restored = step(state, frozen, judges, batch)
        # What Adam remembers of its first gradients.
        moments = optax.tree.get(state.optimizer, "mu")
        grads = {path: np.asarray(moment) / (1 - CONFIG.optimizer.b1) for path, moment in moments.items()}
        ours = Side(metrics, grads, state.params, state.ema, state.discriminator)

        draws = torch.from_numpy(np.array(noise).transpose(1, 0, 4, 2, 3))
        told = twin.step(number, *(x / 127.5 - 1 for x in pictures.values()), draws, nchw(restored))
        theirs = Side(
            told,
            encoders(twin.trained, params, lambda parameter: parameter.grad),
            encoders(twin.trained, params),
            encoders(twin.ema, params),
            on_paths(dict(twin.discriminator.named_parameters()), discriminator.TABLE, values(judge)),
        )
        record.append((ours, theirs))
    return record


def worst(ours: dict, theirs: dict[str, np.ndarray], *, relative: bool) -> tuple[float, str]:
    """The largest difference, where `relative` to the largest element of its tensor, and which tensor it is in."""
    assert ours.keys() == theirs.keys()
    compared = [path for path in theirs if not re.fullmatch(ZERO_GRADIENT, path)]
    assert len(compared) > 0.9 * len(theirs)
    errors = {path: np.abs(np.asarray(ours[path]) - theirs[path]).max() for path in compared}
    scaled = {path: error / np.abs(theirs[path]).max() if relative else error for path, error in errors.items()}
    path = max(scaled, key=scaled.get)
    return scaled[path], path


@pytest.mark.parametrize("number", range(STEPS))
def test_losses(sides, number):
    ours, theirs = sides[number]
    for name, value in theirs.losses.items():
        assert float(ours.losses[name]) == pytest.approx(value, rel=LOSS, abs=LOSS), name


def test_gradients(sides):
    """Of the first step: at later ones the weights differ by what Adam made of rounding."""
    ours, theirs = sides[0]
    error, path = worst(ours.grads, theirs.grads, relative=True)
    assert error <= GRADIENT, path
    norm = np.sqrt(sum(np.square(grad, dtype=np.float64).sum() for grad in theirs.grads.values()))
    assert float(ours.losses["grad_norm"]) == pytest.approx(norm, rel=GRADIENT)


@pytest.mark.parametrize("what", ["params", "ema", "discriminator"])
def test_weights_after_all_steps(sides, what):
    error, path = worst(getattr(sides[-1][0], what), getattr(sides[-1][1], what), relative=False)
    assert error <= WEIGHTS, path


@pytest.mark.parametrize(("what", "since"), [("params", 0), ("ema", 0), ("discriminator", 0)])
def test_what_the_steps_changed(sides, what, since):
    """The weights barely move in three steps, so that bound alone would pass an optimizer that does little."""
    ours, theirs = (change(sides[since][i], sides[-1][i], what) for i in (0, 1))
    assert np.linalg.norm(ours - theirs) <= CHANGE * np.linalg.norm(theirs)


def change(before: Side, after: Side, what: str) -> np.ndarray:
    old, new = getattr(before, what), getattr(after, what)
    paths = sorted(path for path in old if not re.fullmatch(ZERO_GRADIENT, path))
    return np.concatenate([(np.asarray(new[p], np.float64) - np.asarray(old[p], np.float64)).ravel() for p in paths])
