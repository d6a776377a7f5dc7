"""A restoration that runs without this package: its program as StableHLO, and its weights in a file of their own."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from string import Template

import jax
import jax.numpy as jnp
from flax import nnx
from jax.export import Exported, export
from jaxtyping import Array

from interlcm_jax import __version__
from interlcm_jax.arguments import check_batch_size, check_calls, check_color_fix
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_folder
from interlcm_jax.files.paths import to_path
from interlcm_jax.files.safetensors import write_safetensors
from interlcm_jax.models.kernels.attention import flash_kernel
from interlcm_jax.models.weights import lazy_weights, skeleton, with_values
from interlcm_jax.pipeline import InterLCM, restore_pixels
from interlcm_jax.runtime.compiler_options import compiler_options

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, WEIGHTS, EXAMPLE, README = "program.bin", "weights.safetensors", "run.py", "README.md"
OPTIONS = "cpu_options.json"


def compile_model(
    model: InterLCM,
    out: str | Path,
    *,
    batch_size: int = 1,
    platforms: Sequence[str] = PLATFORMS,
    num_network_calls: int | None = None,
    color_fix: str | None = None,
) -> Exported:
    """Writes a folder that restores faces with JAX alone: program, weights, CPU options, an example and a README.

    Args:
        model: the model, whose weights may lie on several devices; the program is for one.
        out: the folder to make; it appears whole or not at all.
        batch_size: faces in each call of the program.
        platforms: those it runs on, of `PLATFORMS`.
        num_network_calls: as in `InterLCM.restore`.
        color_fix: as in `InterLCM.restore`.

    Returns:
        The program that was written, see `export_model`.

    Raises:
        InterLCMError: an argument isn't possible; the folder exists, or can't be made.
    """
    config = model.config
    calls, fix = check_calls(num_network_calls, None, config), check_color_fix(color_fix, config)
    with whole_folder(to_path(out), PROGRAM) as temporary:
        program = export_model(
            model, batch_size=batch_size, platforms=platforms, num_network_calls=calls, color_fix=fix
        )
        weights = lazy_weights(model.networks)
        (temporary / PROGRAM).write_bytes(program.serialize())
        write_safetensors(temporary / WEIGHTS, weights)
        dtypes = sorted({str(tensor.dtype) for tensor in weights.values()})
        (temporary / EXAMPLE).write_text(_template(EXAMPLE))
        options = compiler_options("cpu", bfloat16="bfloat16" in dtypes) or {}
        (temporary / OPTIONS).write_text(json.dumps(options, indent=2) + "\n")
        origins = [f"| {name} | {w['origin']} | {w['license']} |" for name, w in config.weights.items()]
        readme = Template(_template(README)).substitute(
            version=__version__,
            platforms=", ".join(program.platforms),
            count=len(weights),
            dtype=", ".join(dtypes),
            batch=batch_size,
            size=config.image_size,
            task=config.task,
            calls=calls,
            fix=fix,
            jax=jax.__version__,
            origins="\n".join(origins) or "| all | not stated | not stated |",
        )
        (temporary / README).write_text(readme)
    return program


def export_model(
    model: InterLCM,
    *,
    batch_size: int = 1,
    platforms: Sequence[str] = PLATFORMS,
    num_network_calls: int | None = None,
    color_fix: str | None = None,
) -> Exported:
    """The restoration as a program for one device, lowered to StableHLO and not yet compiled; its weights stay out.

    It takes (weights, faces, seed): the weights by path, such as "unet.conv_in.kernel"; faces uint8 (B, S, S, 3) of the
    model's size, RGB; the noise's seed, a uint32 scalar. It gives the restored faces, uint8 (B, S, S, 3), and which
    of them are finite, bool (B,).

    For the TPU alone it holds Pallas' flash attention. For several platforms at once it can't, and cuDNN's never: JAX
    keeps no promise for that kernel in a stored program. Attention then is the plain one, or in chunks.

    Args:
        model: the model; only its sizes are used, so its weights may be abstract.
        batch_size: B.
        platforms: as in `compile_model`.
        num_network_calls: as in `InterLCM.restore`.
        color_fix: as in `InterLCM.restore`.

    Raises:
        InterLCMError: an argument isn't possible.
    """
    batch_size, platforms, config = check_batch_size(batch_size), check_platforms(platforms), model.config
    calls, fix = check_calls(num_network_calls, None, config), check_color_fix(color_fix, config)

    def restore_faces(weights: dict[str, Array], faces: Array, seed: Array) -> tuple[Array, Array]:
        graph, state = nnx.split(with_values(model.networks, weights))
        return restore_pixels(graph, config, calls, fix, state, faces, None, seed, None)

    faces = jax.ShapeDtypeStruct((batch_size, config.image_size, config.image_size, 3), jnp.uint8)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    with flash_kernel(platforms == ("tpu",)), _without_source_paths():
        return export(jax.jit(restore_faces), platforms=platforms)(skeleton(model.networks), faces, seed)


def check_platforms(platforms: Sequence[str]) -> tuple[str, ...]:
    """The platforms to compile for, each once.

    Raises:
        InterLCMError: there are none, or one isn't in `PLATFORMS`.
    """
    if not platforms or (unknown := [name for name in platforms if name not in PLATFORMS]):
        wrong = ", ".join(map(repr, unknown)) if platforms else "none"
        raise InterLCMError(f"platforms: {wrong} given, but they must be among {', '.join(PLATFORMS)}")
    return tuple(dict.fromkeys(platforms))


def _template(name: str) -> str:
    """What a file of the folder is made from."""
    return resources.files("interlcm_jax").joinpath("templates", name).read_text(encoding="utf-8")


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """Keeps this machine's file names out of programs: JAX notes for every operation where it was written."""
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
