"""What the compiler is told: only what it knows, and what the user doesn't say."""

import re
from pathlib import Path

import jax
import numpy as np

from interlcm_jax import pipeline
from interlcm_jax.runtime import compiler_options

YNN = "xla_cpu_experimental_ynn_fusion_type"
ONEDNN = "xla_cpu_experimental_onednn_custom_call"


def test_this_jaxlib_takes_the_option_for_cpu():
    assert compiler_options.compiler_options("cpu") == {YNN: ""}


def test_other_platforms_compile_as_they_are():
    assert compiler_options.compiler_options("tpu") is None
    assert compiler_options.compiler_options("gpu") is None


def test_what_the_user_sets_is_left_to_them(monkeypatch):
    monkeypatch.setattr(compiler_options, "_knows", lambda *asked: True)
    monkeypatch.setenv("XLA_FLAGS", f"--xla_another=1 --{YNN}=8")
    assert compiler_options.compiler_options.__wrapped__("cpu") is None


def test_an_option_that_the_compiler_lacks_is_left_out(monkeypatch):
    monkeypatch.setitem(compiler_options._OPTIONS, "cpu", {"xla_no_such_option": "1", YNN: ""})
    assert compiler_options.compiler_options.__wrapped__("cpu") == {YNN: ""}
    monkeypatch.setitem(compiler_options._OPTIONS, "cpu", {"xla_no_such_option": "1"})
    assert compiler_options.compiler_options.__wrapped__("cpu") is None


def test_a_mesh_in_context_does_not_matter():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    with jax.set_mesh(mesh):
        assert compiler_options.compiler_options.__wrapped__("cpu") == {YNN: ""}


def test_bfloat16_has_options_of_its_own():
    assert compiler_options.compiler_options("cpu", bfloat16=True) == {YNN: "", ONEDNN: "True"}
    assert compiler_options.compiler_options("tpu", bfloat16=True) is None


def test_arguments_of_bfloat16_are_seen():
    tree = {"seed": 1, "noise": np.ones(2, np.float32)}
    assert not compiler_options.holds_bfloat16(tree)
    assert compiler_options.holds_bfloat16(tree | {"weights": jax.numpy.ones(2, "bfloat16")})


def test_weights_know_their_platform():
    assert compiler_options.platform_of({"weight": jax.numpy.ones(3)}) == "cpu"


def test_every_program_is_compiled_with_them(monkeypatch):
    # This asks the compiler, which needs the true `jit`.
    expected, in_bfloat16 = (compiler_options.compiler_options("cpu", bfloat16=half) for half in (False, True))
    true, told = jax.jit, []

    def spy(function, **options):
        told.append(options)
        return true(function, **{name: each for name, each in options.items() if name != "compiler_options"})

    monkeypatch.setattr(jax, "jit", spy)
    double = compiler_options.jit(lambda x, factor: x * factor, static_argnames="factor")
    np.testing.assert_array_equal(double(np.ones(2, np.float32), factor=2), [2, 2])
    assert told[1:] == [{"static_argnames": "factor", "compiler_options": expected}]
    double(jax.numpy.ones(2, "bfloat16"), factor=2)
    assert told[-1]["compiler_options"] == in_bfloat16 != expected
    # Within another program it is part of that, which has the say.
    np.testing.assert_array_equal(true(lambda x: double(x, factor=3))(np.ones(2, np.float32)), [3, 3])
    assert len(told) == 3


def test_no_program_of_the_package_is_compiled_otherwise():
    """But these: a stored program is compiled where it runs, and convolutions are jitted for their trace alone."""
    package = Path(pipeline.__file__).parent
    plain = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\b(?:jax|nnx)\.(?:jit|pmap)\(|@(?:jax|nnx)\.jit|partial\((?:jax|nnx)\.jit", path.read_text())
    }
    once = {"runtime/compiler_options.py", "training/start.py"}
    assert plain - once == {"stablehlo_export.py", "templates/run.py", "models/kernels/winograd.py"}
