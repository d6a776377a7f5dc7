"""The restoration path as a pure function over the five networks: what is compiled to restore, and trained through."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.diffusion.sampler import Denoiser, sample
from interlcm_jax.diffusion.schedule import Steps, restoration_steps
from interlcm_jax.imaging.clip_preprocess import clip_preprocess
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.controlnet import ControlNet
from interlcm_jax.models.embeddings import guidance_embedding
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.visual_encoder import VisualEncoder


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
    vae_slice: int | None = None,
    remat_calls: bool = False,
) -> Float[Array, "B H W 3"]:
    """The restoration path up to the color fix, differentiable (InterLCM, section 3).

    Args:
        networks: the five networks.
        config: schedule, guidance and scaling.
        lq: low-quality images in [-1, 1], height and width multiples of 8 at the released sizes.
        noise: one standard normal draw before each network call, b = B or 1; their number is the number of calls.
        unroll: see `diffusion.sampler.sample`.
        vae_slice: images that the VAE encodes and decodes at a time, which bounds the memory it takes, most of all that
            is taken; None is the whole batch.
        remat_calls: keep only the latents between calls for the backward pass, which then computes each call again.

    Returns:
        Restored images, near [-1, 1], not clipped.
    """
    latents = encode(networks, config, lq, vae_slice)
    denoiser, steps, inputs = steered_denoiser(networks, config, lq, noise.shape[0])
    denoiser = jax.checkpoint(denoiser) if remat_calls else denoiser
    clean = sample(denoiser, latents, noise, steps, inputs, unroll=unroll)
    return in_slices(networks.vae.decode, vae_slice, clean / config.vae.scaling_factor).astype(jnp.float32)


def encode(
    networks: Networks, config: ModelConfig, images: Float[Array, "B H W 3"], vae_slice: int | None = None
) -> Float[Array, "B h w L"]:
    """The scaled latents of images in [-1, 1]: the posterior's mean, `vae_slice` images at a time."""
    mean = in_slices(lambda some: networks.vae.encode(some)[0], vae_slice, images)
    return mean.astype(jnp.float32) * config.vae.scaling_factor


def steered_denoiser(
    networks: Networks, config: ModelConfig, lq: Float[Array, "B H W 3"], calls: int
) -> tuple[Denoiser, Steps, Any]:
    """What `diffusion.sampler` takes: the LCM as both encoders steer it to restore `lq`, its steps, its inputs.

    What is the same at each call is computed once, here: the context and its keys and values in every cross-attention,
    the conditioning stack over the LQ image, the time and guidance embeddings.
    """
    unet, encoder = networks.unet, networks.spatial_encoder
    steps = restoration_steps(config.schedule, calls, config.skipped_steps)
    context = networks.visual_encoder(
        networks.clip_vision(clip_preprocess(lq, config.clip_vision.image_size)).astype(jnp.float32)
    )
    condition = encoder.embed_condition(lq)
    unet_key_values, encoder_key_values = unet.key_values(context), encoder.key_values(context)
    cond = _guidance(config, calls)
    # The embeddings of all calls at once; each call then takes its own, for the whole batch.
    temb = unet.embed_time(steps.timesteps, cond)[:, None], encoder.embed_time(steps.timesteps)[:, None]

    def denoiser(noisy: Array, temb: tuple[Array, Array]) -> Array:
        residuals = encoder.residuals(noisy, temb[1], encoder_key_values, condition)
        return unet.denoise(noisy, temb[0], unet_key_values, *residuals)

    return denoiser, steps, temb


def in_slices(function: Callable[[Array], Array], size: int | None, x: Float[Array, "B ..."]) -> Array:
    """Applies `function` to `size` examples at a time, one slice after the other; the last slice may be short."""
    if size is None or size >= x.shape[0]:
        return function(x)
    whole = x.shape[0] // size * size
    out = jax.lax.map(function, x[:whole].reshape(-1, size, *x.shape[1:]))
    out = out.reshape(whole, *out.shape[2:])
    return out if whole == x.shape[0] else jnp.concatenate([out, function(x[whole:])])


def seed_key(seed: int | Array) -> Array:
    """The key of a seed, always of the same generator: what a seed draws doesn't depend on `jax_default_prng_impl`."""
    return jax.random.key(seed, impl="threefry2x32")


def draw_noise(seed: Array, num_network_calls: int, shape: tuple[int, int, int]) -> Float[Array, "calls 1 h w L"]:
    """The noise of a seed: call c's is a function of (seed, c) alone, and the same for every image of a batch."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, seed_key(seed)))(jnp.arange(num_network_calls))
    return jax.vmap(lambda key: jax.random.normal(key, (1, *shape), jnp.float32))(keys)


def _guidance(config: ModelConfig, count: int) -> Array | None:
    """The guidance embedding of w = scale - 1, once for each call; None for a UNet that takes none."""
    if config.unet.time_cond_proj_dim is None:
        return None
    return guidance_embedding(jnp.full((count,), config.guidance_scale - 1.0), config.unet.time_cond_proj_dim)
