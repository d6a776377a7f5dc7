"""The programs that benchmarks compile and run: functions, with their arguments as shapes where they are to lie."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models import lpips
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.models.kernels import attention
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.weights import abstract
from interlcm_jax.restoration import Networks, restore
from interlcm_jax.training.config import StartConfig, TrainConfig
from interlcm_jax.training.losses import Judges, LossConfig
from interlcm_jax.training.sharding import batch_sharding, make_mesh, weight_shardings
from interlcm_jax.training.stages import Restoration
from interlcm_jax.training.start import abstract_discriminator, abstract_networks
from interlcm_jax.training.state import abstract_state, split_weights, state_shardings
from interlcm_jax.training.step import make_step

# Sizes of the networks, by the name that `ModelConfig` and a training run's config have for them.
SIZES = {"miniature": "miniature", "small": "small", "full": "released"}
# What the backward pass of a training step computes again: nothing, the networks' blocks, or whole network calls too.
REMAT = ("none", "blocks", "calls")


def model_config(size: str) -> ModelConfig:
    """The model of a size of `SIZES`."""
    return getattr(ModelConfig, SIZES[size])()


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled.

    Attributes:
        function: of `arguments`.
        arguments: shapes on devices, which need not be there.
        mesh: that it is traced for: the flash kernel learns from it how the batch is split. None is a single device.
        results: where its results lie; None leaves that to XLA.
        donated: the first result takes the place of the first argument, as a training state does.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    mesh: Mesh | None = None
    results: Any = None
    donated: bool = False

    def traced(self) -> Any:
        """The program traced, to be lowered and compiled or looked into."""
        donated = (0,) if self.donated else ()
        with jax.set_mesh(self.mesh) if self.mesh else contextlib.nullcontext():
            return jax.jit(self.function, donate_argnums=donated, out_shardings=self.results).trace(*self.arguments)

    def filled(self) -> tuple[Any, ...]:
        """Arguments to run it with: small random numbers, on which no program's time depends."""
        # A training state holds second moments, which can't be negative.
        lows = (0.0 if self.donated and place == 0 else -0.02 for place in range(len(self.arguments)))
        return tuple(_filled(shapes, low) for shapes, low in zip(self.arguments, lows, strict=True))


def _filled(shapes: Any, low: float) -> Any:
    # One block of numbers again and again: drawing a billion takes longer than compiling.
    rng = np.random.default_rng(0)
    floats, levels = rng.uniform(low, 0.02, 2**20 + 7), rng.integers(0, 256, 2**20 + 7)

    def fill(spec: jax.ShapeDtypeStruct) -> jax.Array:
        pool = floats if jnp.issubdtype(spec.dtype, jnp.floating) else levels if spec.ndim else np.zeros(1)
        return jax.device_put(np.resize(pool.astype(spec.dtype), spec.shape), spec.sharding)

    return jax.tree.map(fill, shapes)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a program of the restoration is built for: sizes, batch, dtype, device, and options of `restore`."""

    config: ModelConfig
    batch: int
    dtype: DTypeLike
    sharding: Sharding
    unroll: bool = False
    vae_slice: int | None = None

    def array(self, *shape: int, dtype: DTypeLike = jnp.float32) -> jax.ShapeDtypeStruct:
        """An input of a program."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self.sharding)

    def image(self) -> jax.ShapeDtypeStruct:
        """The images at the size the weights were trained on."""
        return self.array(self.batch, self.config.image_size, self.config.image_size, 3)

    def latents(self) -> jax.ShapeDtypeStruct:
        """Their latents."""
        return self.array(self.batch, *self.config.latent_shape(self.image().shape))

    def network(self, kind: type[nnx.Module], config: Any) -> tuple[nnx.GraphDef, Any]:
        """A network's structure, and its weights as shapes."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.dtype}
        graph, weights = nnx.split(abstract(lambda rngs: kind(config, rngs=rngs, **dtypes)))
        return graph, jax.tree.map(lambda w: self.array(*w.shape, dtype=w.dtype), weights)


def restoration(setting: Setting) -> Program:
    """Everything from the LQ images to the restored ones, but for the color fix."""
    graph, weights = setting.network(Networks, setting.config)
    noise = setting.array(setting.config.num_network_calls, *setting.latents().shape)

    def run(weights: Any, lq: jax.Array, noise: jax.Array) -> jax.Array:
        options = {"unroll": setting.unroll, "vae_slice": setting.vae_slice}
        return restore(nnx.merge(graph, weights), setting.config, lq, noise, **options)

    return Program(run, (weights, setting.image(), noise))


def unet(setting: Setting) -> Program:
    """One call of the UNet, without the ControlNet's residuals."""
    config, tokens = setting.config.unet, setting.config.visual_encoder.context_tokens
    graph, weights = setting.network(UNet2DCondition, config)
    timesteps, context = setting.array(setting.batch), setting.array(setting.batch, tokens, config.cross_attention_dim)
    inputs = setting.latents(), timesteps, context, setting.array(setting.batch, config.time_cond_proj_dim)
    return Program(lambda weights, *inputs: nnx.merge(graph, weights)(*inputs), (weights, *inputs))


def encode(setting: Setting) -> Program:
    """The VAE's encoder."""
    graph, weights = setting.network(AutoencoderKL, setting.config.vae)
    return Program(lambda weights, image: nnx.merge(graph, weights).encode(image)[0], (weights, setting.image()))


def decode(setting: Setting) -> Program:
    """The VAE's decoder."""
    graph, weights = setting.network(AutoencoderKL, setting.config.vae)
    return Program(lambda weights, latents: nnx.merge(graph, weights).decode(latents), (weights, setting.latents()))


def attend(function: Callable[..., jax.Array], setting: Setting) -> Program:
    """Attention among all latents, as the UNet's first level has it."""
    config, (height, width, _) = setting.config.unet, setting.latents().shape[1:]
    heads = config.num_heads
    shape = setting.batch, height * width, heads, config.block_out_channels[0] // heads
    return Program(function, (setting.array(*shape, dtype=setting.dtype),) * 3)


RESTORATION: dict[str, Callable[[Setting], Program]] = {
    "restore": restoration,
    "unet": unet,
    "encode": encode,
    "decode": decode,
}
ATTENTION: dict[str, Callable[[Setting], Program]] = {
    "attention": functools.partial(attend, attention.dot_product_attention),
    "attention-plain": functools.partial(attend, attention.plain_attention),
    "attention-chunked": functools.partial(attend, attention.chunked_attention),
}


def train_config(size: str, *, remat: str = "blocks", **options: Any) -> TrainConfig:
    """The release's recipe with all losses from the first step, at a size of `SIZES`, on random weights.

    Args:
        size: of the networks.
        remat: what the backward pass computes again, of `REMAT`.
        options: other fields of `TrainConfig`, such as `batch_size` and `dtype`.
    """
    discriminator = DiscriminatorConfig() if size == "full" else DiscriminatorConfig.miniature()
    losses = LossConfig(adversarial_from=0, lpips_weights="random", discriminator=discriminator)
    config = TrainConfig(
        stage=Restoration(losses, remat_calls=remat == "calls"),
        start=StartConfig(random=SIZES[size]),
        remat=remat != "none",
        **options,
    )
    config.check()
    return config


def training_step(config: TrainConfig, model: ModelConfig, devices: list[jax.Device]) -> Program:
    """The step of a run on these devices, with its batch over all of them."""
    mesh = make_mesh(config.mesh, devices)
    networks = abstract_networks(config, model)
    judge = abstract_discriminator(config)
    state = abstract_state(networks, judge, config.optimizer, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    frozen = split_weights(networks)[1]
    frozen = {path: frozen[path].update(sharding=place) for path, place in weight_shardings(frozen, mesh).items()}
    perceptual = {path: spec.update(sharding=everywhere) for path, spec in lpips.skeleton().items()}
    shape = (config.batch_size, model.image_size, model.image_size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=batch_sharding(mesh))
    judges = Judges(traverse_util.unflatten_dict(perceptual, sep="."), lpips_input=config.stage.losses.lpips_input)
    arguments = (state, frozen, judges, {"lq": images, "hq": images})
    step = make_step(config, model, networks, judge)
    return Program(step, arguments, mesh, (state_shardings(state, mesh), everywhere), donated=True)
