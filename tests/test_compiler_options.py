"""What the compiler is told: on CPU alone, and only what it knows."""

import jax
import numpy as np

from interlcm_jax import compiler_options, pipeline

YNN = "xla_cpu_experimental_ynn_fusion_type"


def test_this_jaxlib_takes_the_option_for_cpu():
    assert compiler_options.compiler_options("cpu") == {YNN: ""}


def test_other_platforms_compile_as_they_are():
    assert compiler_options.compiler_options("tpu") is None
    assert compiler_options.compiler_options("gpu") is None


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
    told = []
    monkeypatch.setattr(jax, "jit", lambda function, **options: told.append(options["compiler_options"]))
    pipeline._program.__wrapped__("cpu")
    assert told == [{YNN: ""}]
