"""The names that `interlcm_jax` itself offers: all can be seen and imported, and none is imported before it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import interlcm_jax

PROGRAM = """
import sys
import interlcm_jax
assert {*interlcm_jax.__all__} <= {*dir(interlcm_jax)}
from interlcm_jax import WeightsError
assert "jax" not in sys.modules
help(interlcm_jax)
"""


def test_help_shows_every_name_and_importing_does_no_work():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    shown = [f"VERSION\n    {interlcm_jax.__version__}", "class InterLCM(", "class RestoreOptions("]
    shown += ["class InterLCMError(", "class WeightsError(", "restore_files(", "restore_photo("]
    assert [text for text in shown if text not in run.stdout] == []


def test_every_name_can_be_imported():
    names = {name: getattr(interlcm_jax, name) for name in interlcm_jax.__all__}
    assert interlcm_jax.__all__ == sorted(names)
    assert all(value.__doc__ for value in names.values())
    with pytest.raises(AttributeError, match="'interlcm_jax' has no attribute 'restore'"):
        _ = interlcm_jax.restore


def test_type_checkers_take_the_annotations():
    assert (Path(interlcm_jax.__file__).parent / "py.typed").is_file()
