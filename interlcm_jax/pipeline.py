"""InterLCM: low-quality faces in, restored faces out, in one compiled program."""

import functools
from pathlib import Path
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from interlcm_jax.arguments import check_calls, check_color_fix, check_dtype, check_images, check_noise, check_seed
from interlcm_jax.atomic import whole_folder
from interlcm_jax.diffusion.sampler import sample
from interlcm_jax.diffusion.schedule import restoration_steps
from interlcm_jax.hub import matching, resolve
from interlcm_jax.imaging.clip_preprocess import clip_preprocess
from interlcm_jax.imaging.color_fix import color_fix as fix_color
from interlcm_jax.model_folder import (
    CONFIG,
    NETWORKS,
    ModelConfig,
    load_network,
    read_config,
    weights_file,
    write_config,
)
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.controlnet import ControlNet
from interlcm_jax.models.embeddings import guidance_embedding
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.visual_encoder import VisualEncoder
from interlcm_jax.models.weights import ShardingRule, abstract, flat_weights
from interlcm_jax.safetensors_file import LazyTensor, write_safetensors


class Networks(nnx.Module):
    """The five networks of InterLCM.

    Args:
        config: their sizes.
        rngs: random streams of the initial weights.
        dtype: compute dtype; norms, softmax and the schedule stay float32.
        param_dtype: storage dtype.
        remat: as in `UNet2DCondition`, for every network.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
    ):
        options = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype, "remat": remat}
        self.unet = UNet2DCondition(config.unet, **options)
        self.spatial_encoder = ControlNet(config.spatial_encoder, **options)
        self.clip_vision = CLIPVision(config.clip_vision, **options)
        self.vae = AutoencoderKL(config.vae, **options)
        self.visual_encoder = VisualEncoder(config.visual_encoder, **options)


def restore(
    networks: Networks,
    config: ModelConfig,
    lq: Float[Array, "B H W 3"],
    noise: Float[Array, "calls b h w L"],
    *,
    unroll: bool = False,
) -> Float[Array, "B H W 3"]:
    """The restoration path up to the colour fix, differentiable (InterLCM, section 3).

    What is the same at each call is computed once, before the calls: the context and its keys and values in every
    cross-attention, the conditioning stack over the LQ image, the time and guidance embeddings.

    Args:
        networks: the five networks.
        config: schedule, guidance and scaling.
        lq: low-quality images in [-1, 1], height and width multiples of 8 at the released sizes.
        noise: one standard normal draw before each network call, b = B or 1; their number is the number of calls.
        unroll: see `diffusion.sampler.sample`.

    Returns:
        Restored images, near [-1, 1], not clipped.
    """
    unet, encoder = networks.unet, networks.spatial_encoder
    steps = restoration_steps(config.schedule, noise.shape[0])
    context = networks.visual_encoder(
        networks.clip_vision(clip_preprocess(lq, config.clip_vision.image_size)).astype(jnp.float32)
    )
    latents = networks.vae.encode(lq)[0].astype(jnp.float32) * config.vae.scaling_factor
    condition = encoder.embed_condition(lq)
    unet_key_values, encoder_key_values = unet.key_values(context), encoder.key_values(context)
    cond = _guidance(config, len(steps.timesteps))
    # The embeddings of all calls at once; each call then takes its own, for the whole batch.
    temb = unet.embed_time(steps.timesteps, cond)[:, None], encoder.embed_time(steps.timesteps)[:, None]

    def denoiser(noisy: Array, temb: tuple[Array, Array]) -> Array:
        residuals = encoder.residuals(noisy, temb[1], encoder_key_values, condition)
        return unet.denoise(noisy, temb[0], unet_key_values, *residuals)

    clean = sample(denoiser, latents, noise, steps, temb, unroll=unroll)
    return networks.vae.decode(clean / config.vae.scaling_factor).astype(jnp.float32)


def draw_noise(seed: Array, num_network_calls: int, shape: tuple[int, int, int]) -> Float[Array, "calls 1 h w L"]:
    """The noise of a seed: call c's is a function of (seed, c) alone, and the same for every image of a batch."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(num_network_calls))
    return jax.vmap(lambda key: jax.random.normal(key, (1, *shape), jnp.float32))(keys)


@functools.partial(jax.jit, static_argnames=("graph", "config", "num_network_calls", "fix"))
def _program(
    graph: nnx.GraphDef,
    config: ModelConfig,
    weights: nnx.State,
    lq: Array,
    noise: Array | None,
    seed: Array,
    num_network_calls: int,
    fix: str,
) -> Array:
    """The whole restoration, from pixels to pixels: uint8 to uint8, or float to float."""
    images = lq.astype(jnp.float32) / 127.5 - 1 if lq.dtype == jnp.uint8 else lq.astype(jnp.float32)
    if noise is None:
        noise = draw_noise(seed, num_network_calls, config.latent_shape(lq.shape))
    restored = fix_color(restore(nnx.merge(graph, weights), config, images, noise), images, fix)
    if lq.dtype == jnp.uint8:
        return jnp.round((jnp.clip(restored, -1, 1) + 1) * 127.5).astype(jnp.uint8)
    return restored


class InterLCM:
    """A model ready to restore: its config and its five networks' weights.

    Args:
        config: sizes and settings.
        networks: the networks with their weights.
    """

    def __init__(self, config: ModelConfig, networks: Networks):
        self.config = config
        self.graph, self.weights = nnx.split(networks)

    @property
    def networks(self) -> Networks:
        """The networks, sharing this model's weights."""
        return nnx.merge(self.graph, self.weights)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        dtype: DTypeLike = "float32",
        *,
        param_dtype: DTypeLike | None = None,
        sharding: ShardingRule | None = None,
        allow_nan: bool = False,
    ) -> Self:
        """Loads a model folder.

        Args:
            model: a folder that `interlcm convert` or `save_pretrained` wrote, or the hub name of one.
            dtype: compute dtype, float32 or bfloat16.
            param_dtype: dtype the weights are held in; by default the compute dtype.
            sharding: where each weight goes: one sharding for all, or a function from (path, shape), the path
                starting with the network's name; None is the default device.
            allow_nan: load weights with NaN or infinity in them all the same.

        Raises:
            InterLCMError: there is no such folder or dtype, or the folder isn't whole.
            WeightsError: weights don't fit their network; every offending key is listed.
        """
        dtype, held = check_dtype(dtype), check_dtype(param_dtype or dtype)
        folder = resolve(model, matching(CONFIG, *(f"{name}.safetensors" for name in NETWORKS)))
        config = read_config(folder)
        networks = abstract(lambda rngs: Networks(config, rngs=rngs, dtype=dtype, param_dtype=held))
        for name in NETWORKS:
            rule = functools.partial(_named, sharding, name) if callable(sharding) else sharding
            load_network(folder, name, getattr(networks, name), rule, allow_nan=allow_nan)
        return cls(config, networks)

    def restore(
        self,
        lq: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"],
        noise: Float[Array, "calls b h w L"] | None = None,
        seed: int = 0,
        color_fix: str | None = None,
        *,
        num_network_calls: int | None = None,
    ) -> UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"]:
        """Restores aligned faces.

        Args:
            lq: RGB images, uint8 or float in [-1, 1]; the weights were trained at `config.image_size`, other sizes
                work where they are multiples of 8 (at the released sizes).
            noise: one standard normal draw before each network call, for each image or one for all (b = 1); None
                draws it from `seed`.
            seed: the same for every image, so an image's result doesn't depend on its batch.
            color_fix: "wavelet", "adain" or "none"; None is the task's own.
            num_network_calls: calls of the networks; None is what the weights were trained for.

        Returns:
            The restored images: uint8 for uint8; float32 for float, near [-1, 1] and not clipped.

        Raises:
            InterLCMError: shape, dtype, noise, seed, number of calls or colour fix don't fit.
        """
        check_images(lq, self.config)
        noise = None if noise is None else jnp.asarray(noise, jnp.float32)
        calls = check_calls(num_network_calls, noise, self.config)
        if noise is not None:
            check_noise(noise, calls, lq.shape, self.config)
        seed, fix = check_seed(seed), check_color_fix(color_fix, self.config)
        return _program(self.graph, self.config, self.weights, jnp.asarray(lq), noise, seed, calls, fix)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a model folder, which appears whole or not at all.

        Raises:
            InterLCMError: the folder exists, or can't be written.
        """
        with whole_folder(Path(folder)) as temporary:
            write_config(temporary, self.config)
            for name in NETWORKS:
                weights = flat_weights(getattr(self.networks, name))
                lazy = {path: _lazy(variable.get_value()) for path, variable in weights.items()}
                write_safetensors(weights_file(temporary, name), lazy)


def _named(sharding: ShardingRule, name: str, path: str, shape: tuple[int, ...]) -> jax.sharding.Sharding:
    return sharding(f"{name}.{path}", shape)


def _lazy(array: jax.Array) -> LazyTensor:
    return LazyTensor(array.shape, np.dtype(array.dtype), Path("memory"), lambda index: np.asarray(array)[index])


def _guidance(config: ModelConfig, count: int) -> Array | None:
    """The guidance embedding of w = scale - 1, once for each call; None for a UNet that takes none."""
    if config.unet.time_cond_proj_dim is None:
        return None
    return guidance_embedding(jnp.full((count,), config.guidance_scale - 1.0), config.unet.time_cond_proj_dim)
