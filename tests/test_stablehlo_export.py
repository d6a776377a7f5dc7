"""A compiled restoration gives what the model gives, without this package, and holds no weights in its program."""

import dataclasses
import functools
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from PIL import Image
from safetensors.flax import load_file

import interlcm_jax
from interlcm_jax import InterLCM, InterLCMError, stablehlo_export
from interlcm_jax.imaging.io import fit_square, read_image
from interlcm_jax.models.weights import abstract, skeleton
from interlcm_jax.restoration import Networks
from interlcm_jax.runtime.compiler_options import compiler_options
from interlcm_jax.stablehlo_export import PLATFORMS, compile_model, export_model
from tests.imaging.odd_images import gradient
from tests.miniature import miniature_model

SIZE, BATCH = 64, 2
ROUNDING = 1  # of 255 levels: the same sums, compiled twice

# Runs a script as `python script arguments` does, where this package and Flax can't be imported.
WITHOUT_THE_PACKAGE = """
import runpy, sys
sys.modules["interlcm_jax"] = sys.modules["flax"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("compiled") / "out"
    compile_model(miniature_model(), out, batch_size=BATCH)
    return out


@pytest.fixture(scope="module")
def program(folder) -> export.Exported:
    return export.deserialize((folder / "program.bin").read_bytes())


def faces(count: int) -> np.ndarray:
    coarse = np.random.default_rng(count).uniform(0, 255, (count, 8, 8, 3))
    return coarse.repeat(8, 1).repeat(8, 2).round().astype(np.uint8)


def assert_same(found, expected) -> None:
    assert found.dtype == expected.dtype == np.uint8
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= ROUNDING


def test_the_example_restores_where_this_package_is_not(folder, tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(faces(1)[0]).save(source)
    run = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", WITHOUT_THE_PACKAGE, folder / "run.py", source, target],
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    # In a batch of the same face, whose program the next test runs too.
    assert_same(np.asarray(Image.open(target)), miniature_model().restore(np.repeat(faces(1), BATCH, 0))[0])


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example over a program that gives back what it is given: from a file to the face in it."""
    monkeypatch.setattr("safetensors.flax.load_file", lambda path: {})
    in_avals = [jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), np.uint8), None]
    same = SimpleNamespace(in_avals=in_avals, call=lambda weights, faces, seed: (faces, np.ones(BATCH, bool)))
    monkeypatch.setattr(export, "deserialize", lambda content: same)
    (tmp_path / "program.bin").touch()
    (tmp_path / "cpu_options.json").write_text("{}")
    script = shutil.copy(stablehlo_export.__file__.replace("stablehlo_export.py", "templates/run.py"), tmp_path)

    def run(source: Path) -> np.ndarray:
        monkeypatch.setattr(sys, "argv", [str(script), str(source), str(tmp_path / "out.png")])
        runpy.run_path(script)
        return np.asarray(Image.open(tmp_path / "out.png"))

    return run


def odd_file(kind: str, folder: Path) -> Path:
    image, turned = Image.fromarray(gradient(SIZE, SIZE)), Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(gradient(SIZE, SIZE)[..., 0].astype(np.uint16) * 257)
    if kind == "turned":
        image.save(path := folder / "face.jpg", exif=turned)
    elif kind == "deep":
        deep.save(path := folder / "face.png")
    elif kind == "deep turned TIFF":
        deep.save(path := folder / "face.tif", exif=turned)
    else:
        image.convert(kind).save(path := folder / ("face.jpg" if kind == "CMYK" else "face.png"))
    return path


@pytest.mark.parametrize("kind", ["turned", "deep", "deep turned TIFF", "L", "LA", "P", "RGBA", "1", "CMYK"])
def test_the_example_sees_files_as_the_package_does(example, tmp_path, kind):
    path = odd_file(kind, tmp_path)
    np.testing.assert_array_equal(example(path), fit_square(read_image(path), SIZE))


def test_the_example_refuses_what_it_would_read_wrong(example, tmp_path):
    Image.fromarray(np.full((SIZE, SIZE), 1e5, np.float32)).save(tmp_path / "face.tif")
    with pytest.raises(SystemExit, match=r"face\.tif: 32 bits a pixel"):
        example(tmp_path / "face.tif")


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_a_batch_is_what_the_model_makes_of_it(folder, program, seed):
    restored, finite = program.call(load_file(folder / "weights.safetensors"), faces(BATCH), np.uint32(seed))
    assert_same(restored, miniature_model().restore(faces(BATCH), seed=seed))
    assert finite.tolist() == [True, True]


def test_faces_that_are_not_finite_are_told(folder, program):
    weights = load_file(folder / "weights.safetensors")
    weights["vae.decoder.conv_out.bias"] = jnp.full_like(weights["vae.decoder.conv_out.bias"], jnp.nan)
    assert program.call(weights, faces(BATCH), np.uint32(0))[1].tolist() == [False, False]


def test_the_folder_says_what_is_in_it(folder, program):
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "cpu_options.json",
        "program.bin",
        "run.py",
        "weights.safetensors",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert program.platforms == PLATFORMS
    readme = (folder / "README.md").read_text()
    assert "for cpu, cuda, tpu" in readme
    assert f"the {len(program.in_avals) - 2} tensors of `weights.safetensors` by name (float32)" in readme
    assert "| faces | uint8 (2, 64, 64, 3), RGB |" in readme
    assert f"Exported by JAX {jax.__version__}" in readme
    assert "| all | not stated | not stated |" in readme
    assert json.loads((folder / "cpu_options.json").read_text()) == compiler_options("cpu")


def test_licenses_are_the_model_folders(tmp_path):
    config = dataclasses.replace(miniature_model().config, weights={"unet": {"origin": "lcm", "license": "MIT"}})
    compile_model(InterLCM(config, miniature_model().networks), tmp_path / "out", platforms=["cpu"])
    assert "|---|---|---|\n| unet | lcm | MIT |\n" in (tmp_path / "out" / "README.md").read_text()


def test_every_weight_is_an_argument_and_no_path_of_this_machine_is_kept(folder, program):
    (weights, given, seed), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    assert {name: aval.shape for name, aval in weights.items()} == {
        name: array.shape for name, array in load_file(folder / "weights.safetensors").items()
    }
    assert (given.shape, given.dtype, seed.shape, seed.dtype) == ((BATCH, SIZE, SIZE, 3), np.uint8, (), np.uint32)
    # Those that became constants, or served nothing, would have been dropped.
    assert len(program.module_kept_var_idx) == len(program.in_avals)
    assert str(Path(interlcm_jax.__file__).parent).encode() not in (folder / "program.bin").read_bytes()
    assert jax.config.jax_traceback_in_locations_limit > 0


@pytest.mark.parametrize(("options", "expected"), [({}, (3, "wavelet")), ({"num_network_calls": 1}, (1, "wavelet"))])
def test_calls_and_color_fix_are_those_asked_for_or_the_models_own(monkeypatch, options, expected):
    seen = []
    pixels_alone = lambda *arguments: seen.append(arguments[2:4]) or (arguments[5], arguments[7])  # noqa: E731
    monkeypatch.setattr(stablehlo_export, "restore_pixels", pixels_alone)
    export_model(miniature_model(), platforms=["cpu"], **options)
    export_model(miniature_model(), platforms=["cpu"], **options, color_fix="none")
    assert seen == [expected, (expected[0], "none")]


def test_a_program_needs_no_weights_and_keeps_their_dtype():
    config, dtypes = miniature_model().config, {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    networks = abstract(lambda rngs: Networks(config, rngs=rngs, **dtypes))
    program = export_model(InterLCM(config, networks), platforms=["tpu", "cpu", "tpu"])
    assert program.platforms == ("tpu", "cpu")
    assert {str(aval.dtype) for aval in program.in_avals[:-2]} == {"bfloat16"}
    assert len(program.in_avals) - 2 == len(skeleton(networks))


@functools.cache
def larger_model() -> InterLCM:
    """The miniature at a size where attention is long enough for a flash kernel."""
    model = miniature_model()
    dtypes = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    networks = abstract(lambda rngs: Networks(model.config, rngs=rngs, **dtypes))
    return InterLCM(dataclasses.replace(model.config, image_size=256), networks)


def test_the_tpu_alone_gets_its_flash_kernel():
    kernels = {names: export_model(larger_model(), platforms=names) for names in (("tpu",), PLATFORMS)}
    assert {names: "tpu_custom_call" in exported.mlir_module() for names, exported in kernels.items()} == {
        ("tpu",): True,
        PLATFORMS: False,
    }


def test_a_machine_with_a_gpu_keeps_its_own_kernel_out(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for platforms in (("cuda",), PLATFORMS):
        assert "cudnn" not in export_model(larger_model(), platforms=platforms).mlir_module()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"platforms": ["cpu", "rocm"]}, "platforms: 'rocm' given"),
        ({"platforms": []}, "platforms: none given"),
        ({"color_fix": "red"}, "color_fix is 'red'"),
        ({"num_network_calls": 0}, "num_network_calls is 0"),
    ],
)
def test_what_is_not_possible_is_named_and_nothing_is_left(tmp_path, options, message):
    with pytest.raises(InterLCMError, match=message):
        compile_model(miniature_model(), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(tmp_path):
    with pytest.raises(InterLCMError, match="exists already"):
        compile_model(miniature_model(), tmp_path)
