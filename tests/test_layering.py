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

# What each part imports of the package: no more is allowed, and nothing is allowed that isn't used.
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "runtime": {"errors", "files"},
    "models": {"errors", "files"},
    "diffusion": {"errors"},
    "imaging": {"errors", "files"},
    "model_folder": {"errors", "files", "models", "diffusion", "imaging"},
    "default_model": {"errors", "files", "model_folder"},
    "restoration": {"models", "diffusion", "imaging", "model_folder"},
    "arguments": {"errors", "imaging", "model_folder"},
    "pipeline": {
        "files",
        "runtime",
        "models",
        "imaging",
        "model_folder",
        "default_model",
        "arguments",
        "restoration",
    },
    "stablehlo_export": {"errors", "files", "runtime", "models", "arguments", "pipeline"},
    "faces": {"errors", "files", "runtime", "models", "imaging", "model_folder"},
    "convert": {"errors", "files", "models", "diffusion", "faces", "model_folder", "default_model", "arguments"},
    "photos": {
        "errors",
        "files",
        "runtime",
        "models",
        "imaging",
        "faces",
        "convert",
        "model_folder",
        "arguments",
        "pipeline",
    },
    "metrics": {"errors", "files", "runtime", "models", "imaging", "convert", "faces"},
    "data": {"errors", "files", "imaging"},
    "evaluation": {
        "errors",
        "files",
        "runtime",
        "models",
        "imaging",
        "faces",
        "convert",
        "metrics",
        "model_folder",
        "arguments",
        "pipeline",
        "photos",
    },
    "training": {
        "errors",
        "files",
        "runtime",
        "models",
        "diffusion",
        "imaging",
        "model_folder",
        "restoration",
        "pipeline",
        "convert",
        "faces",
        "metrics",
        "data",
    },
    "parity": {
        "errors",
        "files",
        "runtime",
        "models",
        "diffusion",
        "imaging",
        "model_folder",
        "restoration",
        "pipeline",
        "convert",
    },
    "demo": {"errors", "runtime", "model_folder", "arguments", "pipeline", "faces", "imaging", "photos"},
    "cli": {
        "errors",
        "files",
        "runtime",
        "model_folder",
        "default_model",
        "arguments",
        "pipeline",
        "stablehlo_export",
        "faces",
        "imaging",
        "convert",
        "photos",
        "demo",
        "data",
        "training",
        "parity",
    },
    "templates": set(),
    "__init__": {"errors", "photos", "pipeline"},
}
PYTORCH = {"torch", "torchvision", "diffusers", "transformers", "lpips"}
# Beside the package's proof against it, the one function that may import PyTorch, when it is called.
IMPORTS_TORCH = ("convert/pickles.py", "import_torch")


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


def test_the_layers_are_what_is_imported():
    found: dict[str, set[str]] = {}
    for path in FILES:
        found.setdefault(part(path), set()).update(parts_imported(path) - {part(path), "__version__"})
    assert found == ALLOWED


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
    # Templates are programs to be written out, which the package doesn't import.
    for path in (path for path in FILES if part(path) not in ("parity", "templates")):
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
        ("interlcm_jax.pipeline", {"lpips_j", "flaxmodels", "h5py", "av"}),
        # The command's --help and its errors needn't wait for JAX.
        ("interlcm_jax.cli.commands", {"jax", "flax", "lpips_j", "flaxmodels", "h5py", "av"}),
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
