"""Where a run starts: the frozen networks, and the trained ones before their first step, each weight on its devices."""

import dataclasses
import functools
import itertools
import types
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from interlcm_jax.convert import lpips
from interlcm_jax.convert.network import load_published, read_schedule
from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.mtcnn import RefinementNetwork, load_networks
from interlcm_jax.files.paths import to_path
from interlcm_jax.model_folder import NETWORKS, TASKS, ModelConfig, load_network, read_config, weights_file
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.controlnet import ControlNetConfig, start_from_unet
from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.lpips import random_params
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.visual_encoder import VisualEncoderConfig
from interlcm_jax.models.weights import abstract, flat_weights, skeleton
from interlcm_jax.restoration import Networks, seed_key
from interlcm_jax.runtime.compiler_options import run_once_options
from interlcm_jax.training.config import StartConfig, TrainConfig
from interlcm_jax.training.losses import Judges
from interlcm_jax.training.sharding import sharding_rule, weight_shardings
from interlcm_jax.training.stage import ENCODERS
from interlcm_jax.training.state import Weights, split_weights

# Streams of the seed, for initial weights; `training.stage` has the others.
_TRAINED, _DISCRIMINATOR, _RANDOM = 11, 12, 13


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        model: the model's config.
        networks: the five networks, and the stage's helpers: the frozen ones filled, in the run's dtype; the trained
            ones as shapes in float32.
        discriminator: as shapes; None where no loss of the stage has one.
        judges: what the stage's losses judge by.
    """

    model: ModelConfig
    networks: Networks
    discriminator: PatchDiscriminator | None
    judges: Judges


def load_start(config: TrainConfig, mesh: Mesh) -> Start:
    """Loads the frozen networks onto the mesh; the trained ones and the discriminator are shapes yet.

    Raises:
        InterLCMError: a source isn't there, isn't what it should be, or the networks don't fit each other.
        WeightsError: weights don't fit their network; every offending key is named.
    """
    start, stage, rule = config.start, config.stage, sharding_rule(mesh)
    published = load_published_networks(start, sharding=rule, dtype=jnp.dtype(config.dtype), remat=config.remat)
    if wrong := [name for name in stage.trained if name in published]:
        name = type(stage).__name__
        raise InterLCMError(f"start.lcm: {name} trains {', '.join(wrong)}; begin from start.model or start.random")
    model = _model_config(config, published)
    networks = abstract_networks(config, model)
    frozen = [name for name in NETWORKS if name not in stage.trained]
    load_frozen(networks, frozen, start, config.seed, mesh, published)
    for helper, name in stage.copied.items():
        if not start.model:
            raise InterLCMError(f"{type(stage).__name__} goes on from a model; name its folder as start.model")
        load_network(to_path(start.model), name, getattr(networks, helper), rule)
    return Start(model, networks, abstract_discriminator(config), load_judges(config, mesh))


def _model_config(config: TrainConfig, published: dict[str, nnx.Module]) -> ModelConfig:
    """The sizes and settings that the start has, with what `config` changes."""
    start = config.start
    if published:
        model = _published_config(start, config.data.image_size, published)
    else:
        model = read_config(to_path(start.model)) if start.model else getattr(ModelConfig, start.random)()
    changes = {name: getattr(start, name) for name in ("num_network_calls", "skipped_steps", "task")}
    changes["color_fix"] = TASKS.get(start.task)
    model = dataclasses.replace(model, **{name: value for name, value in changes.items() if value is not None})
    model.check()
    return model


def abstract_networks(config: TrainConfig, model: ModelConfig) -> Networks:
    """The five networks and the stage's helpers as shapes: frozen weights in the run's dtype, trained in float32."""
    dtype = jnp.dtype(config.dtype)
    options = {"dtype": dtype, "remat": config.remat}
    networks = abstract(lambda rngs: Networks(model, rngs=rngs, param_dtype=dtype, **options))
    for name in set(config.stage.trained) & set(NETWORKS):
        build = functools.partial(type(getattr(networks, name)), getattr(model, name), **options)
        setattr(networks, name, abstract(lambda rngs, build=build: build(rngs=rngs)))
    for name, helper in config.stage.helpers(model, dtype).items():
        setattr(networks, name, helper)
    return networks


def abstract_discriminator(config: TrainConfig) -> PatchDiscriminator | None:
    """The discriminator of the stage's losses, as shapes; None where they have none."""
    losses = config.stage.losses
    if losses is None or not losses.adversarial:
        return None
    return abstract(lambda rngs: PatchDiscriminator(losses.discriminator, rngs=rngs, dtype=jnp.dtype(config.dtype)))


def load_frozen(
    networks: Networks,
    names: Iterable[str],
    start: StartConfig,
    seed: int,
    mesh: Mesh,
    published: Mapping[str, nnx.Module],
) -> None:
    """Fills networks of a model with what a start has for them.

    Args:
        networks: the networks, as shapes.
        names: which are filled.
        start: where they come from.
        seed: of random ones.
        mesh: where they go.
        published: those of `load_published_networks`.
    """
    for name in names:
        if name in published:
            setattr(networks, name, published[name])
        elif _in_folder(start, name):
            load_network(to_path(start.model), name, getattr(networks, name), sharding_rule(mesh))
        else:
            _fill_randomly(getattr(networks, name), seed, _RANDOM, mesh)


def load_judges(config: TrainConfig, mesh: Mesh) -> Judges:
    """The networks that the stage's losses judge by, on every device; those of a loss without weight aren't read.

    Raises:
        InterLCMError: the weights aren't there.
        WeightsError: they don't fit LPIPS.
    """
    losses, params, onet = config.stage.losses, None, None
    if losses is None:
        return Judges()
    if losses.lpips:
        random = losses.lpips_weights == "random"
        params = random_params(config.seed) if random else lpips.load(losses.lpips_weights)
    if losses.onet:
        weights, dtype = load_networks()[2], jnp.dtype(config.dtype)
        onet = RefinementNetwork(weights.config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype)
        for path, weight in flat_weights(weights).items():
            flat_weights(onet)[path].set_value(np.asarray(weight.get_value()).astype(dtype))
    return jax.device_put(Judges(params, onet, losses.lpips_input), NamedSharding(mesh, PartitionSpec()))


def initial_weights(config: TrainConfig, start: Start, mesh: Mesh) -> Weights:
    """Fills `start`'s trained networks with their first weights, and its discriminator; returns the former, by path.

    They are the model folder's, or random; but a new Spatial Encoder starts as the down path of SD 1.5's UNet
    (`start.sd15`; else of the LCM's) with output convolutions of zero.

    Raises:
        InterLCMError: as `load_start`.
    """
    source, networks, trained = config.start, start.networks, config.stage.trained
    if start.discriminator is not None:
        _fill_randomly(start.discriminator, config.seed, _DISCRIMINATOR, mesh)
    known = {name: _in_folder(source, name) and not source.fresh for name in trained}
    for name in trained:
        if known[name]:
            load_network(to_path(source.model), name, getattr(networks, name), sharding_rule(mesh))
        else:
            _fill_randomly(getattr(networks, name), config.seed, _TRAINED, mesh)
    if not known.get("spatial_encoder", True):
        unet = networks.unet
        if source.sd15:
            unet = load_published(UNet2DCondition, source.sd15, "unet", sharding=sharding_rule(mesh))
        start_from_unet(networks.spatial_encoder, unet)
    return split_weights(networks, trained)[0]


def _in_folder(start: StartConfig, name: str) -> bool:
    """Whether the model folder that is started from has this network; encoders may be missing, both."""
    if not start.model or name not in NETWORKS:
        return False
    return name not in ENCODERS or all(weights_file(to_path(start.model), each).is_file() for each in ENCODERS)


def load_published_networks(start: StartConfig, **options: Any) -> dict[str, nnx.Module]:
    """The frozen networks by name where they come as they are published; else none.

    Args:
        start: where the networks come from.
        options: of `convert.network.load_published`.
    """
    if start.model or start.random:
        return {}
    return {
        "unet": load_published(UNet2DCondition, start.lcm, "unet", **options),
        "vae": load_published(AutoencoderKL, start.lcm, "vae", **options),
        "clip_vision": load_published(CLIPVision, start.clip, **options),
    }


def _published_config(start: StartConfig, image_size: int, networks: dict[str, nnx.Module]) -> ModelConfig:
    """The config of a model of published networks, with encoders of the release's widths that fit them."""
    configs = {name: network.config for name, network in networks.items()}
    clip, unet = configs["clip_vision"], configs["unet"]
    return ModelConfig(
        **configs,
        visual_encoder=VisualEncoderConfig(tokens=clip.num_tokens, features=clip.hidden_size),
        spatial_encoder=ControlNetConfig.from_unet(unet),
        schedule=read_schedule(start.lcm),
        image_size=image_size,
        weights={
            "unet": {"origin": f"{start.lcm}/unet", "license": "see its origin"},
            "vae": {"origin": f"{start.lcm}/vae", "license": "see its origin"},
            "clip_vision": {"origin": str(start.clip), "license": "see its origin"},
        },
    )


def _fill_randomly(network: nnx.Module, seed: int, stream: int, mesh: Mesh) -> None:
    """Fills an abstract network with its initial weights, each made where it lies."""
    key = jax.random.fold_in(seed_key(seed), stream)
    specs = skeleton(network)

    def make() -> Weights:
        # Counted here: under tracing `nnx.Rngs` takes a time that is quadratic in its draws.
        count = itertools.count()
        rngs = types.SimpleNamespace(params=lambda: jax.random.fold_in(key, next(count)))
        fresh = type(network)(network.config, rngs=rngs)
        return {path: weight.get_value().astype(specs[path].dtype) for path, weight in flat_weights(fresh).items()}

    options = run_once_options(mesh.devices.flat[0].platform)
    weights = jax.jit(make, out_shardings=weight_shardings(specs, mesh), compiler_options=options)()
    for path, weight in flat_weights(network).items():
        weight.set_value(weights[path])
