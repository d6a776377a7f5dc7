"""InterLCM: low-quality faces in, restored faces out, in one compiled program."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from interlcm_jax.arguments import (
    FLOATING,
    ModelOptions,
    as_noise,
    check_calls,
    check_color_fix,
    check_dtype,
    check_faces,
    check_fidelity,
    check_images,
    check_kind,
    check_noise,
    check_options,
    check_seed,
    check_vae_slice,
)
from interlcm_jax.default_model import find_model
from interlcm_jax.files.atomic import whole_folder
from interlcm_jax.files.hub import matching
from interlcm_jax.files.paths import to_path
from interlcm_jax.files.safetensors import write_safetensors
from interlcm_jax.imaging.color_fix import color_fix as fix_color
from interlcm_jax.imaging.color_fix import towards_input
from interlcm_jax.imaging.pixels import to_float, to_uint8
from interlcm_jax.model_folder import (
    CONFIG,
    NETWORKS,
    ModelConfig,
    load_network,
    read_config,
    weights_file,
    write_config,
)
from interlcm_jax.models.weights import ShardingRule, abstract, lazy_weights
from interlcm_jax.restoration import Networks, draw_noise, restore
from interlcm_jax.runtime.batching import in_batches, pad, replicated_mesh
from interlcm_jax.runtime.compiler_options import jit, traced
from interlcm_jax.runtime.platform import fastest_dtype


def restore_pixels(
    graph: nnx.GraphDef,
    config: ModelConfig,
    num_network_calls: int,
    fix: str,
    weights: nnx.State,
    lq: Array,
    noise: Array | None,
    seed: Array,
    fidelity: Array | None,
    vae_slice: int | None = None,
) -> tuple[Array, Array]:
    """From pixels to pixels, uint8 to uint8 or float to float; and which images are finite."""
    images = to_float(lq)
    if noise is None:
        noise = draw_noise(seed, num_network_calls, config.latent_shape(lq.shape))
    restored = restore(nnx.merge(graph, weights), config, images, noise, vae_slice=vae_slice)
    restored = fix_color(restored, images, fix)
    if fidelity is not None:
        restored = towards_input(restored, images, fidelity)
    finite = jnp.isfinite(restored).all(axis=(1, 2, 3))
    if lq.dtype == jnp.uint8:
        restored = to_uint8(restored)
    return restored, finite


def _run(
    graph: nnx.GraphDef,
    config: ModelConfig,
    weights: nnx.State,
    lq: Array,
    noise: Array | None,
    seed: Array,
    fidelity: Array | None,
    num_network_calls: int,
    fix: str,
    mesh: Mesh | None,
    vae_slice: int | None,
) -> tuple[Array, Array]:
    """The whole restoration as one program; on a mesh, each device runs it on its share of the batch."""
    run = functools.partial(restore_pixels, graph, config, num_network_calls, fix, vae_slice=vae_slice)
    if mesh is None:
        return run(weights, lq, noise, seed, fidelity)
    whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
    draws = whole if noise is None or noise.shape[1] == 1 else PartitionSpec(None, mesh.axis_names)
    specs = (whole, split, draws, whole, whole)
    shared = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
    return shared(weights, lq, noise, seed, fidelity)


_program = jit(_run, static_argnames=("graph", "config", "num_network_calls", "fix", "mesh", "vae_slice"))


class InterLCM:
    """A model ready to restore: its config and its five networks' weights.

    Args:
        config: sizes and settings.
        networks: the networks with their weights.
    """

    def __init__(self, config: ModelConfig, networks: Networks):
        check_kind("config", config, ModelConfig, "a ModelConfig")
        check_kind("networks", networks, Networks, "the networks that restoration.Networks makes")
        self.config = config
        self.graph, self.weights = nnx.split(networks)

    @property
    def networks(self) -> Networks:
        """The networks, sharing this model's weights."""
        return nnx.merge(self.graph, self.weights)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        dtype: DTypeLike = "float32",
        *,
        param_dtype: DTypeLike | None = None,
        sharding: ShardingRule | None = None,
        allow_nan: bool = False,
    ) -> Self:
        """Loads a model folder.

        Args:
            model: a folder that `interlcm download`, `interlcm convert` or `save_pretrained` wrote, or a name of one;
                None is the default model: see `default_model.find_model`.
            dtype: compute dtype, float32 or bfloat16; "auto" is bfloat16 where the device is faster in it.
            param_dtype: dtype the weights are held in; by default the compute dtype.
            sharding: where each weight goes: one sharding for all, or a function from (path, shape), the path
                starting with the network's name; None is the default device.
            allow_nan: load weights with NaN or infinity in them all the same.

        Raises:
            InterLCMError: there is no such folder or dtype, or the folder isn't whole.
            WeightsError: weights don't fit their network; every offending key is listed.
        """
        check_kind("model", model, str | os.PathLike | None, "a folder, a name or None")
        check_kind("sharding", sharding, jax.sharding.Sharding | Callable | None, "a sharding, a function or None")
        # Not `==` first: a dtype compares itself with any text as with a dtype's name.
        dtype = check_dtype(fastest_dtype() if isinstance(dtype, str) and dtype == "auto" else dtype)
        held = check_dtype(param_dtype or dtype)
        folder = find_model(model, select=matching(CONFIG, *(f"{name}.safetensors" for name in NETWORKS)))
        config = read_config(folder)
        networks = abstract(lambda rngs: Networks(config, rngs=rngs, dtype=dtype, param_dtype=held))
        for name in NETWORKS:
            rule = functools.partial(_named, sharding, name) if callable(sharding) else sharding
            load_network(folder, name, getattr(networks, name), rule, allow_nan=allow_nan)
        return cls(config, networks)

    def restore(
        self,
        lq: UInt8[Array | np.ndarray, "B H W 3"] | Float[Array | np.ndarray, "B H W 3"],
        noise: Float[Array | np.ndarray, "calls b h w L"] | None = None,
        seed: int | Array = 0,
        color_fix: str | None = None,
        *,
        num_network_calls: int | None = None,
        fidelity: float | Array = 0.0,
        vae_slice: int | None = None,
    ) -> UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"]:
        """Restores aligned faces, as one batch; it is split over the devices that each hold a copy of the weights.

        Within a function of yours that JAX traces (`jax.jit`, `jax.grad`, `jax.lax.map`, `jax.export`) it becomes part
        of that program, and seed and fidelity may be traced as well.

        Args:
            lq: RGB images, uint8 or float in [-1, 1]; the weights were trained at `config.image_size`, other sizes
                work where they are multiples of `config.downsampling`, 8 in the released models.
            noise: one standard normal draw before each network call, for each image or one for all (b = 1); None
                draws it from `seed`.
            seed: the same for every image, so an image's result doesn't depend on its batch.
            color_fix: "wavelet", "adain" or "none"; None is the task's own.
            num_network_calls: calls of the networks; None is what the weights were trained for.
            fidelity: from 0, the restoration itself, to 1, its details on the input's shapes; see
                `imaging.color_fix.towards_input`.
            vae_slice: images at a time in each device's VAE, where a whole batch needs too much memory.

        Returns:
            The restored images: uint8 for uint8; float32 for float, near [-1, 1] and not clipped.

        Raises:
            InterLCMError: shape, dtype, noise, seed, number of calls or color fix don't fit.
        """
        restored, _ = self._start(lq, noise, seed, color_fix, num_network_calls, fidelity, vae_slice)
        return restored

    def restore_all(
        self, faces: Iterable[UInt8[np.ndarray, "H W 3"]], *, batch_size: int = 1, **options: Unpack[ModelOptions]
    ) -> Iterator[UInt8[np.ndarray, "H W 3"] | None]:
        """Restores any number of aligned faces of one size, and yields them in order.

        A face for which the networks gave NaN or infinity is yielded as None.

        They go through one program in batches, of which the last is padded. The next faces are taken from `faces`
        while the device works, so reading and cropping belong in that iterable.

        Args:
            faces: uint8 RGB images.
            batch_size: faces at a time on each device that holds the weights.
            **options: `seed`, `color_fix`, `num_network_calls`, `fidelity` and `vae_slice`, as in `restore`.

        Raises:
            InterLCMError: as `restore`; the batch size is below 1; or a face is of another size than the first.
        """
        check_options(self.config, batch_size=batch_size, **options)
        mesh = replicated_mesh(self.weights)
        size = batch_size * (1 if mesh is None else mesh.size)
        check_kind("faces", faces, Iterable, "an iterable of uint8 arrays (H, W, 3)")
        return in_batches(check_faces(faces), size, functools.partial(self._start, **options))

    def _start(
        self,
        lq: Array,
        noise: Array | None = None,
        seed: int | Array = 0,
        color_fix: str | None = None,
        num_network_calls: int | None = None,
        fidelity: float | Array = 0.0,
        vae_slice: int | None = None,
    ) -> tuple[Array, Array]:
        """Checks what `restore` is asked for and starts it: the images to come, and which of them are finite."""
        check_images(lq, self.config)
        noise = as_noise(noise)
        calls = check_calls(num_network_calls, noise, self.config)
        if noise is not None:
            check_noise(noise, calls, lq.shape, self.config)
        seed, fix, blend = check_seed(seed), check_color_fix(color_fix, self.config), check_fidelity(fidelity)
        vae_slice = check_vae_slice(vae_slice)
        if traced((lq, noise, seed, blend)):
            # The outer program has the say over devices and compiler options.
            lq = jnp.asarray(lq)
            return _run(self.graph, self.config, self.weights, lq, noise, seed, blend, calls, fix, None, vae_slice)
        mesh, count = replicated_mesh(self.weights), lq.shape[0]
        if mesh is not None:
            whole = -(-count // mesh.size) * mesh.size
            lq = jax.device_put(pad(lq, whole), NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
            noise = noise if noise is None or noise.shape[1] == 1 else pad(noise, whole, axis=1)
        # Said explicitly: programs that forbid implicit transfers (`jax.transfer_guard`) can restore too.
        seed, blend = jax.device_put((seed, blend), None if mesh is None else NamedSharding(mesh, PartitionSpec()))
        result = _program(self.graph, self.config, self.weights, lq, noise, seed, blend, calls, fix, mesh, vae_slice)
        return jax.tree.map(lambda array: array[:count], result) if mesh is not None else result

    def save_pretrained(self, folder: str | Path, dtype: DTypeLike | None = None) -> None:
        """Writes a model folder, which appears whole or not at all.

        Args:
            folder: where it is made.
            dtype: dtype of the weights in it, "float16" among others; by default the one they are held in.

        Raises:
            InterLCMError: the folder exists, or can't be written, or there is no such floating-point dtype.
            WeightsError: a weight is too large for the dtype.
        """
        check_kind("folder", folder, str | os.PathLike, "a path")
        kept = None if dtype is None else check_dtype(dtype, FLOATING)
        with whole_folder(to_path(folder), CONFIG) as temporary:
            write_config(temporary, self.config)
            for name in NETWORKS:
                weights = lazy_weights(getattr(self.networks, name))
                if kept is not None:
                    weights = {path: weight.astype(kept) for path, weight in weights.items()}
                write_safetensors(weights_file(temporary, name), weights)


def _named(sharding: ShardingRule, name: str, path: str, shape: tuple[int, ...]) -> jax.sharding.Sharding:
    return sharding(f"{name}.{path}", shape)
