"""What diffusers' Flax classes take on a TPU for the programs of `benchmarks.tpu_compile`, by the same count.

    pip install 'jax[tpu]==0.10.2' 'flax==0.12.8' 'diffusers==0.34.0'
    python -m benchmarks.diffusers_flax --part chain unet --batch-size 1 8

needs an environment of its own: diffusers 0.34 was the last with Flax classes, and they don't run under later JAX.
Sizes are Stable Diffusion 1.5's, in bfloat16; the UNet is without guidance embedding, which they don't know. The chain
is the VAE's encoder, three calls of ControlNet and UNet, unrolled, and the decoder.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from diffusers import FlaxAutoencoderKL, FlaxControlNetModel, FlaxUNet2DConditionModel
from jax import Array
from jax.sharding import Sharding

from benchmarks.tpu_cost import Program, compiled, tpu

DTYPE = jnp.bfloat16
SIZE, TOKENS, WIDTH = 512, 77, 768
SCALING_FACTOR = 0.18215
# What an LCM's schedule keeps of the signal at timesteps 759, 499 and 259, roughly: no number changes the program.
TIMESTEPS, SIGNALS = (759, 499, 259), (0.3, 0.5, 0.7)

DENOISER: dict[str, Any] = {
    "sample_size": SIZE // 8,
    "in_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": WIDTH,
    "dtype": DTYPE,
}
AUTOENCODER: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": SIZE,
    "dtype": DTYPE,
}


def array(sharding: Sharding, *shape: int, dtype: Any = DTYPE) -> jax.ShapeDtypeStruct:
    """An argument of a program."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def weights(model: Any, sharding: Sharding) -> Any:
    """A model's weights as shapes."""
    shapes = jax.eval_shape(lambda: model.init_weights(jax.random.key(0)))
    return jax.tree.map(lambda each: array(sharding, *each.shape), shapes)


def unet(batch: int, sharding: Sharding) -> Program:
    """One call of the UNet."""
    model = FlaxUNet2DConditionModel(out_channels=4, **DENOISER)

    def run(params: Any, latents: Array, timesteps: Array, context: Array) -> Array:
        return model.apply({"params": params}, latents, timesteps, context).sample

    inputs = (
        array(sharding, batch, 4, SIZE // 8, SIZE // 8),
        array(sharding, batch, dtype=jnp.int32),
        array(sharding, batch, TOKENS, WIDTH),
    )
    return run, (weights(model, sharding), *inputs)


def chain(batch: int, sharding: Sharding) -> Program:
    """From the low-quality images to the restored ones."""
    denoiser = FlaxUNet2DConditionModel(out_channels=4, **DENOISER)
    control = FlaxControlNetModel(**DENOISER)
    autoencoder = FlaxAutoencoderKL(**AUTOENCODER)

    def run(params: Any, lq: Array, context: Array, noise: Array) -> Array:
        of_denoiser, of_control, of_autoencoder = ({"params": each} for each in params)
        latents = autoencoder.apply(of_autoencoder, lq, method=autoencoder.encode).latent_dist.mode()
        clean = jnp.moveaxis(latents, -1, 1) * SCALING_FACTOR
        for call, (timestep, signal) in enumerate(zip(TIMESTEPS, SIGNALS, strict=True)):
            level, sigma = jnp.sqrt(jnp.float32(signal)), jnp.sqrt(jnp.float32(1 - signal))
            noisy = level * clean + sigma * noise[call]
            inputs = noisy, jnp.full((batch,), timestep, jnp.int32), context
            down, mid = control.apply(of_control, *inputs, (lq + 1) / 2, 1.0, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            (eps,) = denoiser.apply(of_denoiser, *inputs, **residuals, return_dict=False)
            clean = (noisy - sigma * eps) / level
        return autoencoder.apply(of_autoencoder, clean / SCALING_FACTOR, method=autoencoder.decode).sample

    inputs = (
        array(sharding, batch, 3, SIZE, SIZE),
        array(sharding, batch, TOKENS, WIDTH),
        array(sharding, len(TIMESTEPS), batch, 4, SIZE // 8, SIZE // 8),
    )
    return run, (tuple(weights(each, sharding) for each in (denoiser, control, autoencoder)), *inputs)


PARTS: dict[str, Callable[[int, Sharding], Program]] = {"chain": chain, "unet": unet}


def main() -> None:
    """Compiles what was asked for, one after the other, and prints the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["chain", "unet"], help="default: chain unet")
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 8], help="default: 1 8")
    parser.add_argument("--topology", default="v5e:2x2", help="default: v5e:2x2")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    print("| program | batch | TFLOP | GB accessed | GB through HBM | GB temporaries | compile, s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for part in options.part:
        for batch in options.batch_size:
            cost, _ = compiled(PARTS[part](batch, tpu(options.topology)))
            numbers = (cost.tflop, cost.accessed, cost.hbm, cost.temporaries)
            cells = " | ".join("" if number is None else f"{number:.2f}" for number in numbers)
            print(f"| {part} | {batch} | {cells} | {cost.seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
