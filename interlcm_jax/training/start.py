"""Where a run starts: the frozen networks, and the trained ones before their first step, each weight on its devices."""

import dataclasses
import functools
import itertools
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, UInt8

from interlcm_jax.convert.network import load_published, read_schedule
from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.mtcnn import RefinementConfig, RefinementNetwork, load_networks
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.model_folder import NETWORKS, TASKS, ModelConfig, load_network, read_config, weights_file
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.controlnet import ControlNetConfig, start_from_unet
from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.visual_encoder import VisualEncoderConfig
from interlcm_jax.models.weights import ShardingRule, abstract, flat_weights, skeleton
from interlcm_jax.restoration import Networks
from interlcm_jax.runtime.compiler_options import run_once_options
from interlcm_jax.training.config import REMAT, StartConfig, TrainConfig
from interlcm_jax.training.sharding import sharding_rule, weight_shardings
from interlcm_jax.training.stages import stage_of
from interlcm_jax.training.state import TRAINED, Weights, split_weights

# Streams of the seed, for initial weights; `training.step` has its own.
_ENCODERS, _DISCRIMINATOR, _RANDOM = 11, 12, 13


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        model: the model's config.
        networks: the five networks, and the stage's helpers: the frozen ones filled, in the run's dtype; the trained
            ones as shapes in float32.
        discriminator: as shapes.
    """

    model: ModelConfig
    networks: Networks
    discriminator: PatchDiscriminator


def load_start(config: TrainConfig, mesh: Mesh) -> Start:
    """Loads the frozen networks onto the mesh; the trained ones and the discriminator are shapes yet.

    Raises:
        InterLCMError: a source isn't there, isn't what it should be, or the networks don't fit each other.
        WeightsError: weights don't fit their network; every offending key is named.
    """
    if config.stage != "restoration" and not (config.start.model or config.start.random):
        raise InterLCMError(f"the stage {config.stage} starts from start.model or start.random")
    start, stage, rule = config.start, stage_of(config), sharding_rule(mesh)
    options = {"dtype": jnp.dtype(config.dtype), "remat": REMAT[config.remat][0]}
    if not start.model and not start.random:
        published = _published(start, {**options, "sharding": rule})
        model = _published_config(start, config.data.image_size, published)
    else:
        model = read_config(Path(start.model)) if start.model else getattr(ModelConfig, start.random)()
        published = {}
    model = dataclasses.replace(
        model,
        num_network_calls=start.num_network_calls,
        skipped_steps=start.skipped_steps,
        task=start.task,
        color_fix=TASKS[start.task],
    )
    if config.autoencoder.new_decoder:
        vae = dataclasses.replace(model.vae, decoder_block_out_channels=config.autoencoder.new_decoder)
        model = dataclasses.replace(model, vae=vae)
    model.check()
    if (crop := config.losses.crop) and (not 0 < crop <= model.image_size or crop % model.downsampling):
        raise InterLCMError(
            f"losses.crop is {crop}, but must be a multiple of {model.downsampling} and at most {model.image_size}"
        )
    networks = abstract_networks(config, model)
    for name in NETWORKS:
        if name in stage.trained:
            continue
        if name in start.without:
            _fill_with_zeros(getattr(networks, name), mesh)
        elif start.model and (name not in TRAINED or _has_encoders(start)):
            load_network(Path(start.model), name, getattr(networks, name), rule)
        elif start.model or start.random:
            _fill_randomly(getattr(networks, name), _stream(config, _RANDOM), mesh)
        else:
            setattr(networks, name, published[name])
    _fill_helpers(config, networks, mesh)
    judge = abstract(lambda rngs: PatchDiscriminator(config.discriminator, rngs=rngs, dtype=options["dtype"]))
    return Start(model, networks, judge)


def _fill_helpers(config: TrainConfig, networks: Networks, mesh: Mesh) -> None:
    """Fills the frozen networks that no model has."""
    for name, source in stage_of(config).copied.items():
        if not config.start.model:
            raise InterLCMError(f"the stage {config.stage} goes on from a model; name its folder as start.model")
        load_network(Path(config.start.model), source, getattr(networks, name), sharding_rule(mesh))
    if config.losses.onet:
        specs, onet = skeleton(networks.onet), flat_weights(load_networks()[2])
        places = weight_shardings(specs, mesh)
        for path, weight in flat_weights(networks.onet).items():
            weight.set_value(jax.device_put(onet[path].get_value().astype(specs[path].dtype), places[path]))


def abstract_networks(config: TrainConfig, model: ModelConfig) -> Networks:
    """The five networks and the stage's helpers as shapes: frozen weights in the run's dtype, trained in float32."""
    stage = stage_of(config)
    options = {"dtype": jnp.dtype(config.dtype), "remat": REMAT[config.remat][0]}
    networks = abstract(lambda rngs: Networks(model, rngs=rngs, param_dtype=options["dtype"], **options))
    for name in set(stage.trained) & set(NETWORKS):
        kind, sizes = type(getattr(networks, name)), getattr(model, name)
        setattr(networks, name, abstract(functools.partial(_build, kind, sizes, options)))
    for name, helper in stage.helpers(config, model).items():
        setattr(networks, name, helper)
    if config.losses.onet:
        dtypes = {"dtype": options["dtype"], "param_dtype": options["dtype"]}
        networks.onet = abstract(functools.partial(_build, RefinementNetwork, RefinementConfig.output(), dtypes))
    return networks


def _build(kind: type[nnx.Module], sizes: Any, options: dict[str, Any], rngs: nnx.Rngs) -> nnx.Module:
    return kind(sizes, rngs=rngs, **options)


def initial_weights(config: TrainConfig, start: Start, mesh: Mesh) -> Weights:
    """Fills `start`'s trained networks with their first weights, and its discriminator; returns the former, by path.

    They are the model folder's, or random; but a new Spatial Encoder starts as the down path of SD 1.5's UNet
    (`start.sd15`; else of the LCM's) with output convolutions of zero.

    Raises:
        InterLCMError: as `load_start`.
    """
    source, networks, rule, trained = config.start, start.networks, sharding_rule(mesh), stage_of(config).trained
    _fill_randomly(start.discriminator, _stream(config, _DISCRIMINATOR), mesh)
    for name in trained:
        if name == "vae" and config.autoencoder.new_decoder:
            _fill_randomly(networks.vae, _stream(config, _ENCODERS), mesh)
            _load_encoder(Path(source.model), networks.vae, rule)
        elif name in NETWORKS and source.model and not source.fresh and (name not in TRAINED or _has_encoders(source)):
            load_network(Path(source.model), name, getattr(networks, name), rule)
        else:
            _fill_randomly(getattr(networks, name), _stream(config, _ENCODERS), mesh)
    if "spatial_encoder" in trained and (source.fresh or not _has_encoders(source)):
        _start_spatial_encoder(source, networks, mesh)
    return split_weights(networks, trained)[0]


def _load_encoder(folder: Path, vae: AutoencoderKL, rule: ShardingRule) -> None:
    """Takes over what makes the latents, and the linear map back: all but the decoder."""
    kept = abstract(lambda rngs: AutoencoderKL(read_config(folder).vae, rngs=rngs))
    load_network(folder, "vae", kept, rule)
    for part in ("encoder", "quant_conv", "post_quant_conv"):
        setattr(vae, part, getattr(kept, part))


def _has_encoders(source: StartConfig) -> bool:
    """Whether the model that is started from has encoders."""
    return bool(source.model) and all(weights_file(Path(source.model), name).is_file() for name in TRAINED)


def _start_spatial_encoder(source: StartConfig, networks: Networks, mesh: Mesh) -> None:
    unet = networks.unet
    if source.sd15:
        unet = load_published(UNet2DCondition, source.sd15, "unet", sharding=sharding_rule(mesh))
    start_from_unet(networks.spatial_encoder, unet)


def with_latent_scale(start: Start, faces: Iterable[UInt8[np.ndarray, "H W 3"]]) -> Start:
    """The same with the scaling factor that brings these faces' latents to a deviation of 1 (Rombach et al. 2022, D.1).

    Rounded to four digits, so that it is the same on any device.
    """

    @jax.jit
    def moments(vae: AutoencoderKL, image: Array) -> Array:
        latents = vae.encode(to_float(image))[0].astype(jnp.float32)
        return jnp.stack([latents.mean(), (latents**2).mean()])

    mean, square = np.mean([moments(start.networks.vae, face[None]) for face in faces], axis=0, dtype=np.float64)
    factor = float(f"{(square - mean**2) ** -0.5:.4g}")
    vae = dataclasses.replace(start.model.vae, scaling_factor=factor)
    return dataclasses.replace(start, model=dataclasses.replace(start.model, vae=vae))


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
            "unet": {"origin": f"{start.lcm}/unet", "license": "see its origin"},
            "vae": {"origin": f"{start.lcm}/vae", "license": "see its origin"},
            "clip_vision": {"origin": str(start.clip), "license": "see its origin"},
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

    options = run_once_options(mesh.devices.flat[0].platform)
    weights = jax.jit(make, out_shardings=weight_shardings(specs, mesh), compiler_options=options)()
    for path, weight in flat_weights(network).items():
        weight.set_value(weights[path])


def _fill_with_zeros(network: nnx.Module, mesh: Mesh) -> None:
    specs = skeleton(network)
    places = weight_shardings(specs, mesh)
    for path, weight in flat_weights(network).items():
        weight.set_value(jnp.zeros(specs[path].shape, specs[path].dtype, device=places[path]))


def _stream(config: TrainConfig, stream: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config.seed), stream)
