"""Checks of what callers hand to `InterLCM`; each error names the value and says what is allowed."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from interlcm_jax.errors import InterLCMError, number_problems
from interlcm_jax.imaging.color_fix import METHODS
from interlcm_jax.model_folder import ModelConfig

_DTYPES = ("float32", "bfloat16")
# Those that weights are kept in, or loaded in for a single network.
FLOATING = (*_DTYPES, "float16", "float64")
# What a resize makes of [-1, 1] may reach a little further, but not so far.
_BEYOND = 2.0


class ModelOptions(TypedDict, total=False):
    """How faces are restored: what `InterLCM.restore` takes besides images and noise; see there."""

    seed: int
    color_fix: str | None
    num_network_calls: int | None
    fidelity: float
    vae_slice: int | None


def check_kind(name: str, value: Any, kinds: Any, wanted: str) -> None:
    """An argument of these types.

    Raises:
        InterLCMError: it is of another; says what is wanted.
    """
    if not isinstance(value, kinds):
        kind = type(value)
        found = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        raise InterLCMError(f"{name} is of type {found}, but must be {wanted}")


def check_dtype(dtype: DTypeLike, allowed: Sequence[str] = _DTYPES) -> np.dtype:
    """The dtype to compute or hold weights in.

    Raises:
        InterLCMError: it is none, or not one of those allowed: by default, those that the networks run in.
    """
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in allowed:
        raise InterLCMError(f"dtype is {dtype!r}, but must be {' or '.join(allowed)}")
    return found


def check_images(lq: Array, config: ModelConfig) -> None:
    """Low-quality images: (B, H, W, 3), uint8 or float in [-1, 1].

    Of floats only those of NumPy are looked through: to look at a device's would mean to wait for it.
    """
    check_kind("lq", lq, jax.Array | np.ndarray, "an array of JAX or NumPy")
    multiple = config.downsampling
    if lq.ndim != 4 or lq.shape[-1] != 3 or lq.shape[1] % multiple or lq.shape[2] % multiple or 0 in lq.shape:
        raise InterLCMError(
            f"lq has shape {tuple(lq.shape)}, but must be (B, H, W, 3) with H and W multiples of {multiple}"
        )
    if lq.dtype != np.uint8 and not jnp.issubdtype(lq.dtype, jnp.floating):
        raise InterLCMError(f"lq is {lq.dtype}, but must be uint8, or floating point in [-1, 1]")
    if isinstance(lq, np.ndarray) and lq.dtype != np.uint8:
        least, most = float(lq.min()), float(lq.max())
        if not -_BEYOND <= least <= most <= _BEYOND:
            raise InterLCMError(f"lq has values from {least:g} to {most:g}, but floats must be in [-1, 1]")
        if 0 <= least < most:
            warnings.warn(
                f"lq has values from {least:g} to {most:g}; floats are taken to be in [-1, 1], where 0 is middle gray",
                stacklevel=4,
            )


def as_noise(noise: Array | None) -> Array | None:
    """Noise as a float32 array."""
    try:
        found = None if noise is None else jnp.asarray(noise)
    except (TypeError, ValueError):
        raise InterLCMError(f"noise is of type {type(noise).__name__}, but must be an array of numbers") from None
    if found is not None and not jnp.isrealobj(found):
        raise InterLCMError(f"noise is {found.dtype}, but must be floating point")
    return None if found is None else found.astype(jnp.float32)


def check_faces(faces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The faces as they come, each of the shape and dtype of the first."""
    first = None
    for count, face in enumerate(faces):
        if not isinstance(face, np.ndarray) or face.ndim != 3:
            found = f"{type(face).__module__}.{type(face).__name__} of shape {getattr(face, 'shape', None)}"
            raise InterLCMError(f"face {count} is a {found}, but must be a NumPy array (H, W, 3)")
        kind = f"{face.dtype} {face.shape}"
        first = first or kind
        if kind != first:
            raise InterLCMError(f"face {count} is {kind}, but all must be as the first, {first}")
        yield face


def check_calls(num_network_calls: int | None, noise: Array | None, config: ModelConfig) -> int:
    """The number of network calls: the one asked for, else the noise's, else the model's."""
    if num_network_calls is None:
        num_network_calls = config.num_network_calls if noise is None or noise.ndim != 5 else noise.shape[0]
    most = config.schedule.original_inference_steps - config.skipped_steps
    return _integer("num_network_calls", num_network_calls, 1, most)


def check_noise(noise: Array, calls: int, lq_shape: tuple[int, ...], config: ModelConfig) -> None:
    """Noise for every call, and for each image or one for all."""
    latent = config.latent_shape(lq_shape)
    if noise.shape not in {(calls, b, *latent) for b in (1, lq_shape[0])}:
        raise InterLCMError(
            f"noise has shape {tuple(noise.shape)}, but must be {(calls, lq_shape[0], *latent)}: (calls, B, h, w, L), "
            f"for latents {config.downsampling} times smaller than the images"
        )


def check_seed(seed: int | Array) -> np.uint32 | Array:
    """A seed, which is 32 bits wide; within a user's traced function it may be traced too."""
    if isinstance(seed, jax.core.Tracer):
        if seed.ndim or not jnp.issubdtype(seed.dtype, jnp.integer):
            raise InterLCMError(f"seed is {seed.dtype}{list(seed.shape)}, but must be one integer")
        return seed.astype(jnp.uint32)
    return np.uint32(_integer("seed", seed, 0, 2**32 - 1))


def check_color_fix(color_fix: str | None, config: ModelConfig) -> str:
    """The color fix asked for, else the task's."""
    color_fix = config.color_fix if color_fix is None else color_fix
    if color_fix not in list(METHODS):
        raise InterLCMError(f"color_fix is {color_fix!r}, but must be one of {', '.join(METHODS)}")
    return color_fix


def check_fidelity(fidelity: float | Array) -> np.float32 | Array | None:
    """The fidelity knob, 0 to 1; None for 0, which needs no blend. A traced one is taken as it is."""
    if isinstance(fidelity, jax.core.Tracer):
        if fidelity.ndim or not jnp.isrealobj(fidelity):
            raise InterLCMError(f"fidelity is {fidelity.dtype}{list(fidelity.shape)}, but must be one number")
        return fidelity.astype(jnp.float32)
    if problems := number_problems("fidelity", fidelity, 0, 1, float):
        raise InterLCMError(problems[0])
    return np.float32(fidelity) if fidelity else None


def check_options(
    config: ModelConfig,
    *,
    batch_size: int = 1,
    seed: int = 0,
    color_fix: str | None = None,
    num_network_calls: int | None = None,
    fidelity: float = 0.0,
    vae_slice: int | None = None,
) -> None:
    """Everything that `InterLCM.restore_all` takes besides images, without starting anything."""
    check_batch_size(batch_size)
    check_seed(seed)
    check_color_fix(color_fix, config)
    check_calls(num_network_calls, None, config)
    check_fidelity(fidelity)
    check_vae_slice(vae_slice)


def check_batch_size(batch_size: int) -> int:
    """Faces at a time on a device."""
    return _integer("batch_size", batch_size, 1, 2**16)


def check_vae_slice(vae_slice: int | None) -> int | None:
    """Images that the VAE takes at a time; None is all."""
    return None if vae_slice is None else _integer("vae_slice", vae_slice, 1, 2**16)


def _integer(name: str, value: int, least: int, most: int) -> int:
    value = value.item() if isinstance(value, np.integer) else value
    if problems := number_problems(name, value, least, most):
        raise InterLCMError(problems[0])
    return value
