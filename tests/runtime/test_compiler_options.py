"""What the compiler is told: only what it knows, and what the user doesn't say."""

import jax
import numpy as np
import pytest

from interlcm_jax import pipeline
from interlcm_jax.runtime import compiler_options

YNN, PREFETCHES = "xla_cpu_experimental_ynn_fusion_type", "xla_msa_max_outstanding_prefetches"


def test_this_jaxlib_takes_the_option_for_cpu():
    assert compiler_options.compiler_options("cpu") == {YNN: ""}


def test_other_platforms_compile_as_they_are():
    assert compiler_options.compiler_options("tpu") is None
    assert compiler_options.compiler_options("gpu") is None


def test_a_tpu_restores_without_copying_weights_ahead(monkeypatch):
    monkeypatch.setattr(compiler_options, "_knows", lambda *asked: True)
    assert compiler_options.restoration_options.__wrapped__("tpu") == {PREFETCHES: "0"}
    assert compiler_options.restoration_options.__wrapped__("cpu") == {YNN: ""}
    assert compiler_options.restoration_options.__wrapped__("gpu") is None


@pytest.mark.parametrize(
    ("variable", "platform", "option"), [("LIBTPU_INIT_ARGS", "tpu", PREFETCHES), ("XLA_FLAGS", "cpu", YNN)]
)
def test_what_the_user_sets_is_left_to_them(monkeypatch, variable, platform, option):
    monkeypatch.setattr(compiler_options, "_knows", lambda *asked: True)
    monkeypatch.setenv(variable, f"--xla_another=1 --{option}=8")
    assert compiler_options.restoration_options.__wrapped__(platform) is None


def test_an_option_that_the_compiler_lacks_is_left_out(monkeypatch):
    monkeypatch.setitem(compiler_options._OPTIONS, "cpu", {"xla_no_such_option": "1", YNN: ""})
    assert compiler_options.compiler_options.__wrapped__("cpu") == {YNN: ""}
    monkeypatch.setitem(compiler_options._OPTIONS, "cpu", {"xla_no_such_option": "1"})
    assert compiler_options.compiler_options.__wrapped__("cpu") is None


def test_a_mesh_in_context_does_not_matter():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    with jax.set_mesh(mesh):
        assert compiler_options.compiler_options.__wrapped__("cpu") == {YNN: ""}


def test_weights_know_their_platform():
    assert compiler_options.platform_of({"weight": jax.numpy.ones(3)}) == "cpu"


def test_the_restoration_is_compiled_with_them(monkeypatch):
    expected = compiler_options.restoration_options("cpu")  # asks the compiler, which needs the true `jit`
    told = []
    monkeypatch.setattr(jax, "jit", lambda function, **options: told.append(options["compiler_options"]))
    pipeline._program.__wrapped__("cpu")
    assert told == [expected] == [{YNN: ""}]
