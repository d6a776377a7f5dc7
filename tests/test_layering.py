"""Which part of the package may import which, and that importing it does no work (design: layers point one way)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import interlcm_jax

PACKAGE = Path(interlcm_jax.__file__).parent
REPOSITORY = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAXIMUM_LINES = 300

# What each part may import of the package, besides itself and the plain files that stand at the bottom.
BOTTOM = {"errors", "atomic", "safetensors_file", "user_folders"}
ALLOWED = {
    "errors": set(),
    "atomic": set(),
    "safetensors_file": set(),
    "user_folders": set(),
    "fetch": set(),
    "hub": set(),
    "imaging": set(),
    "diffusion": set(),
    "models": set(),
    "model_folder": {"models", "diffusion", "imaging"},
    "default_model": {"hub", "model_folder"},
    "restoration": {"models", "diffusion", "imaging", "model_folder"},
    "arguments": {"models", "imaging", "model_folder"},
    "batches": set(),
    "compiler_options": set(),
    "pipeline": {
        "models",
        "diffusion",
        "imaging",
        "hub",
        "model_folder",
        "default_model",
        "arguments",
        "batches",
        "restoration",
        "compiler_options",
    },
    "compiled": {"models", "arguments", "pipeline"},
    "faces": {"models", "imaging", "hub", "model_folder"},
    "convert": {"models", "diffusion", "hub", "model_folder", "faces"},
    "download": {"convert", "hub", "fetch", "default_model", "model_folder"},
    "overlap": set(),
    "compile_cache": set(),
    "photos": {"faces", "imaging", "model_folder", "pipeline"},
    "losses": {"models"},
    "metrics": {"models", "imaging", "convert", "faces"},
    "data": {"imaging"},
    "evaluation": {
        "models",
        "imaging",
        "faces",
        "convert",
        "metrics",
        "overlap",
        "batches",
        "model_folder",
        "pipeline",
        "photos",
    },
    "training": {
        "models",
        "diffusion",
        "imaging",
        "losses",
        "pipeline",
        "restoration",
        "model_folder",
        "hub",
        "batches",
        "convert",
        "data",
        "faces",
        "metrics",
        "compiler_options",
    },
    "cli": {
        "default_model",
        "download",
        "pipeline",
        "compiled",
        "photos",
        "overlap",
        "compile_cache",
        "batches",
        "arguments",
        "convert",
        "imaging",
        "faces",
        "hub",
        "model_folder",
        "training",
        "data",
        "metrics",
    },
    "__init__": {"pipeline"},
}
PYTORCH = {"torch", "torchvision", "diffusers", "transformers", "lpips"}
# The one function that may import PyTorch, when it is called.
IMPORTS_TORCH = ("convert/checkpoints.py", "import_torch")


def part(path: Path) -> str:
    """The folder right under the package that a file is in, or its own name."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all modules imported anywhere below, those within functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts_imported(path: Path) -> set[str]:
    names = [name.split(".") for name in imported(ast.parse(path.read_text()))]
    return {name[1] for name in names if name[0] == "interlcm_jax" and len(name) > 1}


def test_every_part_has_a_place_in_the_layers():
    assert {part(path) for path in FILES} <= ALLOWED.keys()
    for allowed in ALLOWED.values():
        assert allowed <= ALLOWED.keys()


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_imports_point_down(path):
    own = part(path)
    names = {name for name in parts_imported(path) if name in ALLOWED}
    assert names - {own} - BOTTOM - ALLOWED[own] == set()


def test_the_layers_have_no_cycle():
    order: list[str] = []
    while len(order) < len(ALLOWED):
        free = [name for name, allowed in ALLOWED.items() if name not in order and allowed <= set(order)]
        assert free, f"a cycle among {ALLOWED.keys() - set(order)}"
        order += free


def test_networks_import_no_way_of_loading_them():
    for path in (PACKAGE / "models").rglob("*.py"):
        assert not parts_imported(path) & {"convert", "pipeline", "hub", "model_folder", "training", "cli"}, path


def test_the_sampler_imports_no_network():
    for path in (PACKAGE / "diffusion").rglob("*.py"):
        assert not parts_imported(path) & {"models", "pipeline"}, path
        assert "flax" not in {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}, path


def test_data_imports_no_jax():
    for path in (PACKAGE / "data").rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(ast.parse(path.read_text()))} & {"jax", "flax"}, path


def test_pytorch_is_imported_in_one_function_only():
    found = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        for name in imported(tree):
            if name.split(".")[0] in PYTORCH:
                functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
                inside = [function.name for function in functions if name in imported(function)]
                found.append((path.relative_to(PACKAGE).as_posix(), *inside))
    assert found == [IMPORTS_TORCH]


def test_pytorch_is_imported_by_parity_tests_only():
    for path in (REPOSITORY / "tests").rglob("*.py"):
        if "parity" not in path.parts:
            names = set(imported(ast.parse(path.read_text())))
            assert not {name.split(".")[0] for name in names} & PYTORCH, path
            assert not {name for name in names if name.startswith("tests.parity")}, path


def test_the_library_imports_no_script():
    for path in FILES:
        roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
        assert not roots & {"train", "evaluate", "configs", "tests"}, path


def test_files_are_short():
    lengths = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > MAXIMUM_LINES} == {}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("interlcm_jax", {"jax", "flax"}),
        # Only LPIPS needs these, and they take seconds to import.
        ("interlcm_jax.pipeline", {"lpips_j", "flaxmodels", "h5py"}),
        # The command's --help and its errors needn't wait for JAX.
        ("interlcm_jax.cli.main", {"jax", "flax", "lpips_j", "flaxmodels", "h5py"}),
    ],
)
def test_importing_does_no_work(module, absent):
    program = (
        f"import sys, {module}\n"
        "from_jax = sys.modules.get('jax')\n"
        "if from_jax is not None:\n"
        # This setting can't be changed once a backend runs: JAX's public sign that none does.
        "    from_jax.config.update('jax_num_cpu_devices', 3)\n"
        "    assert from_jax.device_count() == 3\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert not loaded & (PYTORCH | {"tensorflow", "torch_xla"} | absent)
