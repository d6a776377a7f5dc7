"""A whole model against PyTorch: weights, every network, every step of the sampler, the restoration."""

import dataclasses
import gc
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from jax.typing import DTypeLike

from interlcm_jax.convert.model import CLASSES
from interlcm_jax.convert.rules import Table, to_jax
from interlcm_jax.diffusion.sampler import refine
from interlcm_jax.files.safetensors import from_array
from interlcm_jax.imaging.clip_preprocess import clip_preprocess
from interlcm_jax.imaging.pixels import to_uint8
from interlcm_jax.model_folder import ModelConfig, load_network, read_config
from interlcm_jax.models.weights import abstract, flat_weights, skeleton
from interlcm_jax.parity import reference
from interlcm_jax.parity.activations import Difference, difference, to_numpy
from interlcm_jax.parity.ladder import TOLERANCE, WHOLE, Rung, Twins, climb, pairs
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.restoration import encode, steered_denoiser
from interlcm_jax.runtime.compiler_options import jit


@dataclasses.dataclass(frozen=True)
class Call:
    """How one part of the model is called on both sides.

    Attributes:
        jax: `jax(network, *arrays)`, channels last.
        torch: `torch(network, *tensors)`, with the same numbers.
        takes: their names in `Reference.trace`.
        gives: the result's name there.
    """

    jax: Callable[..., Any]
    torch: Callable[..., Any]
    takes: tuple[str, ...]
    gives: str


def _unet(net: Any, noisy: Any, step: Any, context: Any, cond: Any, residuals: Any) -> Any:
    down, mid = (list(residuals[:-1]), residuals[-1]) if residuals else (None, None)
    return net(noisy, step, context, cond, down, mid)


def _torch_unet(net: Any, noisy: Any, step: Any, context: Any, cond: Any, residuals: Any) -> Any:
    down, mid = (residuals[:-1], residuals[-1]) if residuals else (None, None)
    added = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    return net(noisy, step, context, timestep_cond=cond, **added).sample


# In the order of the data.
PARTS = {
    "clip_vision": Call(operator.call, reference.all_tokens, ("pixels",), "tokens"),
    "visual_encoder": Call(operator.call, operator.call, ("tokens",), "context"),
    "vae.encode": Call(
        lambda net, lq: net.encode(lq)[0], lambda net, lq: net.encode(lq).latent_dist.mean, ("lq",), "mean"
    ),
    "spatial_encoder": Call(
        operator.call,
        lambda net, *inputs: net(*inputs, return_dict=False),
        ("noisy.1", "timestep.1", "context", "lq"),
        "residuals",
    ),
    "unet": Call(_unet, _torch_unet, ("noisy.1", "timestep.1", "context", "cond", "residuals"), "eps.1"),
    "vae.decode": Call(
        lambda net, latents: net.decode(latents),
        lambda net, latents: net.decode(latents).sample,
        ("unscaled",),
        "decoded",
    ),
}
# The modules of each half of the VAE.
HALVES = {"encode": ("encoder", "quant_conv"), "decode": ("decoder", "post_quant_conv")}


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be proved, and how.

    Attributes:
        folder: the model folder.
        exported: the same model in PyTorch's formats, laid out as `interlcm export` does.
        lq: (B, H, W, 3), images in [-1, 1].
        noise: (calls, B, h, w, L), a standard normal draw before each network call.
        dtype: JAX's compute dtype; PyTorch's is float32.
        levels: see `ladder.climb`.
        tolerance: see `ladder.climb`.
        precision: see `activations.differences`.
    """

    folder: Path
    exported: Path
    lq: np.ndarray
    noise: np.ndarray
    dtype: DTypeLike = jnp.float32
    levels: int | None = 2
    tolerance: float = TOLERANCE
    precision: str = "highest"


@dataclasses.dataclass(frozen=True)
class Step:
    """One more part of the model, compared.

    Attributes:
        rungs: its comparisons.
        fault: what is wrong, in words; None if nothing is.
        pictures: (2, B, H, W, 3) uint8, restored by PyTorch and by JAX; of the last step.
    """

    rungs: list[Rung]
    fault: str | None
    pictures: np.ndarray | None = None


def check_model(request: Request) -> Iterator[Step]:
    """Compares a model with PyTorch, part by part, with one network of each in memory but for the whole.

    Raises:
        InterLCMError: there is no such model, or a module gives other shapes than PyTorch's.
        WeightsError: weights don't fit their network.
    """
    config = read_config(request.folder)
    trace, seconds = _trace(config, request, torch.float32)
    for part in PARTS:
        yield _check_part(config, request, part, trace)
        gc.collect()
    yield _check_whole(config, request, trace, seconds)


def make_twins(part: str, network: nnx.Module, module: torch.nn.Module, trace: dict[str, Any]) -> Twins:
    """A part's networks with what they are called with.

    Args:
        part: a name in `PARTS`.
        network: the JAX network.
        module: PyTorch's, in float32.
        trace: PyTorch's tensors by the names in `PARTS`.
    """
    name, _, half = part.partition(".")
    call = PARTS[part]
    names = pairs(network, module, CLASSES[name][1])
    if half:
        names = {path: names[path] for path in names if path.split(".")[0] in HALVES[half]}
    takes = [trace[key] for key in call.takes]

    def call_module(net: torch.nn.Module) -> Any:
        return call.torch(net, *_like(net, takes))

    return Twins(
        part,
        network,
        module,
        call.jax,
        jax.tree.map(lambda tensor: jnp.asarray(to_numpy(tensor)), tuple(takes)),
        call_module,
        names,
        jax.tree.map(to_numpy, trace[call.gives]),
        # The Visual Encoder's channels are its tokens.
        (3,) if name == "visual_encoder" else (4,),
    )


def check_network(twins: Twins, table: Table, **options: Any) -> Step:
    """One network: its weights, bit for bit, then `ladder.climb`, which takes the `options`."""
    weights, wrong = _compare_weights(twins, table)
    rungs, fault = climb(twins, **options)
    return Step([weights, *rungs], wrong or fault)


def _check_part(config: ModelConfig, request: Request, part: str, trace: dict[str, Any]) -> Step:
    name = part.partition(".")[0]
    kind, table = CLASSES[name]
    dtypes = {"dtype": request.dtype, "param_dtype": request.dtype}
    network = abstract(lambda rngs: kind(config.networks[name], rngs=rngs, **dtypes))
    load_network(request.folder, name, network)
    module = reference.load_network(config, request.exported, name)
    twins = make_twins(part, network, module, trace)
    return check_network(twins, table, levels=request.levels, tolerance=request.tolerance, precision=request.precision)


def _check_whole(config: ModelConfig, request: Request, trace: dict[str, Any], seconds: float) -> Step:
    """The sampler's steps as they follow each other, and the shipped restoration."""
    half = jnp.dtype(request.dtype) != jnp.float32
    own = _trace(config, request, torch.bfloat16)[0] if half else None
    model = InterLCM.from_pretrained(request.folder, request.dtype)
    with jax.default_matmul_precision(request.precision):
        pixels, *latents = _sampled(model, request)
        found = {"pixels": pixels, **{f"latents.{call}": each for call, each in enumerate(latents)}}
        model.restore(request.lq, request.noise)
        found["restored"], taken = _timed(lambda: np.asarray(model.restore(request.lq, request.noise)))
    rungs = []
    for key, ours in found.items():
        theirs = [to_numpy(trace[key])]
        other = None if own is None else difference([to_numpy(own[key])], theirs)
        times = (seconds, taken) if key == "restored" else (None, None)
        rungs.append(Rung(key, difference([ours], theirs), WHOLE * request.tolerance, own=other, seconds=times))
    pictures = np.stack([to_uint8(image) for image in (to_numpy(trace["restored"]), found["restored"])])
    wrong = next((f"{rung.name} is off" for rung in rungs if not rung.passes), None)
    if wrong is None and not half and level_differences(pictures)[0] > 1:
        wrong = "the restored image is off by more than one of 255 levels"
    return Step(rungs, wrong, pictures)


def level_differences(pictures: np.ndarray) -> tuple[int, float]:
    """By how many of 255 levels two pictures, (2, ...) uint8, differ at most, and at which share of the values."""
    levels = np.abs(pictures[0].astype(np.int16) - pictures[1])
    return int(levels.max()), float((levels > 0).mean())


def _trace(config: ModelConfig, request: Request, dtype: torch.dtype) -> tuple[dict[str, Any], float]:
    """PyTorch's restoration, all of it, and how long its second run took."""
    model = reference.Reference.load(config, request.exported, dtype)
    lq = torch.from_numpy(request.lq.copy()).permute(0, 3, 1, 2).to(dtype)
    noise = torch.from_numpy(request.noise.copy()).permute(0, 1, 4, 2, 3).to(dtype)
    with torch.no_grad():
        model.trace(lq, noise)
        return _timed(lambda: model.trace(lq, noise))


def _sampled(model: InterLCM, request: Request) -> tuple[np.ndarray, ...]:
    """What CLIP takes, and the latents before and after every call, by the shipped functions."""
    config, graph, calls = model.config, model.graph, len(request.noise)

    def run(weights: nnx.State, lq: jax.Array, noise: jax.Array) -> tuple[jax.Array, ...]:
        networks = nnx.merge(graph, weights)
        denoiser, steps, inputs = steered_denoiser(networks, config, lq, calls)

        def call(clean: jax.Array, step: Any) -> tuple[jax.Array, jax.Array]:
            clean = refine(denoiser, clean, *step)
            return clean, clean

        first = encode(networks, config, lq)
        _, latents = jax.lax.scan(call, first, (noise, steps, inputs))
        return clip_preprocess(lq, config.clip_vision.image_size), first, *latents

    return jax.device_get(jit(run)(model.weights, request.lq, request.noise))


def _compare_weights(twins: Twins, table: Table) -> tuple[Rung, str | None]:
    """Every weight, bit for bit, in the dtype that JAX holds it in."""
    origin = Path(twins.name)
    source = {
        key: from_array(tensor.numpy(), origin)
        for key, tensor in twins.module.state_dict().items()
        if tensor.is_floating_point()
    }
    theirs = to_jax(source, skeleton(twins.network), table, origin)
    worst, wrong = Difference(0.0, 0.0), []
    modules = tuple(f"{path}." for path in twins.names)
    for path, weight in flat_weights(twins.network).items():
        if not path.startswith(modules):
            continue
        ours = np.asarray(weight.get_value())
        expected = theirs[path].read().astype(ours.dtype)
        if not np.array_equal(ours, expected):
            wrong.append(path)
            one = difference([ours.astype(np.float32)], [expected.astype(np.float32)])
            worst = max(worst, one, key=lambda each: each.rms)
    fault = f"{twins.name}: {len(wrong)} weights differ, the first is {wrong[0]}" if wrong else None
    return Rung(f"{twins.name} weights", worst, 0.0), fault


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def _like(net: torch.nn.Module, tensors: Sequence[Any]) -> list[Any]:
    """The tensors in the dtype of the network, but for timesteps, which half precision would round."""
    dtype = next(net.parameters()).dtype
    return jax.tree.map(lambda x: x.to(dtype) if x.ndim > 1 else x, list(tensors))
