"""Where a run starts: the frozen networks, and the encoders before their first step, each weight on its devices."""

import dataclasses
import itertools
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from interlcm_jax.convert.network import load_published, read_schedule
from interlcm_jax.model_folder import TASKS, ModelConfig, load_network, read_config, weights_file
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig, start_from_unet
from interlcm_jax.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.visual_encoder import VisualEncoder, VisualEncoderConfig
from interlcm_jax.models.weights import abstract, flat_weights, skeleton
from interlcm_jax.restoration import Networks
from interlcm_jax.training.config import StartConfig, TrainConfig
from interlcm_jax.training.sharding import sharding_rule, weight_shardings
from interlcm_jax.training.state import TRAINED, Weights, split_weights
from interlcm_jax.training.step import REMAT

FROZEN = ("unet", "vae", "clip_vision")
# Streams of the seed, for initial weights; `training.step` has its own.
_ENCODERS, _DISCRIMINATOR, _RANDOM = 11, 12, 13


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        model: the model's config.
        networks: the five networks: the frozen ones filled, in the run's dtype; the encoders as shapes in float32.
        discriminator: as shapes.
    """

    model: ModelConfig
    networks: Networks
    discriminator: PatchDiscriminator


def load_start(config: TrainConfig, mesh: Mesh) -> Start:
    """Loads the frozen networks onto the mesh; the encoders and the discriminator are shapes yet.

    Raises:
        InterLCMError: a source isn't there, isn't what it should be, or the networks don't fit each other.
        WeightsError: weights don't fit their network; every offending key is named.
    """
    start, rule = config.start, sharding_rule(mesh)
    options = {"dtype": jnp.dtype(config.dtype), "remat": REMAT[config.remat][0]}
    if not start.model and not start.random:
        published = _published(start, {**options, "sharding": rule})
        model = _published_config(start, config.data.image_size, published)
    else:
        model = read_config(Path(start.model)) if start.model else getattr(ModelConfig, start.random)()
        published = {}
    model = dataclasses.replace(
        model, num_network_calls=start.num_network_calls, task=start.task, color_fix=TASKS[start.task]
    )
    model.check()
    networks = abstract_networks(config, model)
    for name in FROZEN:
        if start.model:
            load_network(Path(start.model), name, getattr(networks, name), rule)
        elif start.random:
            _fill_randomly(getattr(networks, name), _stream(config, _RANDOM), mesh)
        else:
            setattr(networks, name, published[name])
    sizes = DiscriminatorConfig.miniature() if start.random == "miniature" else DiscriminatorConfig()
    judge = abstract(lambda rngs: PatchDiscriminator(sizes, rngs=rngs, dtype=options["dtype"]))
    return Start(model, networks, judge)


def abstract_networks(config: TrainConfig, model: ModelConfig) -> Networks:
    """The five networks as shapes: frozen weights in the run's dtype, trained ones in float32."""
    options = {"dtype": jnp.dtype(config.dtype), "remat": REMAT[config.remat][0]}
    networks = abstract(lambda rngs: Networks(model, rngs=rngs, param_dtype=options["dtype"], **options))
    networks.visual_encoder = abstract(lambda rngs: VisualEncoder(model.visual_encoder, rngs=rngs, **options))
    networks.spatial_encoder = abstract(lambda rngs: ControlNet(model.spatial_encoder, rngs=rngs, **options))
    return networks


def initial_weights(config: TrainConfig, start: Start, mesh: Mesh) -> Weights:
    """Fills `start`'s encoders with their first weights, and its discriminator; returns the encoders', by path.

    They are the model folder's, or new: then the Spatial Encoder starts as the down path of SD 1.5's UNet
    (`start.sd15`; else of the LCM's) with output convolutions of zero, and the Visual Encoder is random.

    Raises:
        InterLCMError: as `load_start`.
    """
    source, networks, rule = config.start, start.networks, sharding_rule(mesh)
    _fill_randomly(start.discriminator, _stream(config, _DISCRIMINATOR), mesh)
    if source.model and not source.fresh and all(weights_file(Path(source.model), n).is_file() for n in TRAINED):
        for name in TRAINED:
            load_network(Path(source.model), name, getattr(networks, name), rule)
        return split_weights(networks)[0]
    for name in TRAINED:
        _fill_randomly(getattr(networks, name), _stream(config, _ENCODERS), mesh)
    unet = networks.unet
    if source.sd15:
        unet = load_published(UNet2DCondition, source.sd15, "unet", sharding=rule)
    start_from_unet(networks.spatial_encoder, unet)
    return split_weights(networks)[0]


def _published(start: StartConfig, options: dict[str, Any]) -> dict[str, nnx.Module]:
    """The frozen networks from the folders or repositories that they are published in."""
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
            "unet": {"origin": f"{start.lcm}/unet", "licence": "see its origin"},
            "vae": {"origin": f"{start.lcm}/vae", "licence": "see its origin"},
            "clip_vision": {"origin": str(start.clip), "licence": "see its origin"},
        },
    )


def _fill_randomly(network: nnx.Module, key: jax.Array, mesh: Mesh) -> None:
    """Fills an abstract network with its initial weights, each made where it lies."""
    specs = skeleton(network)

    def make() -> Weights:
        # Counted here: under tracing `nnx.Rngs` takes a time that is quadratic in its draws.
        count = itertools.count()
        rngs = types.SimpleNamespace(params=lambda: jax.random.fold_in(key, next(count)))
        fresh = type(network)(network.config, rngs=rngs)
        return {path: weight.get_value().astype(specs[path].dtype) for path, weight in flat_weights(fresh).items()}

    weights = jax.jit(make, out_shardings=weight_shardings(specs, mesh))()
    for path, weight in flat_weights(network).items():
        weight.set_value(weights[path])


def _stream(config: TrainConfig, stream: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config.seed), stream)
