"""The dtype that a device computes fastest in."""

from types import SimpleNamespace

import jax
import jaxlib
import pytest

from interlcm_jax import InterLCM
from interlcm_jax.runtime import platform


@pytest.mark.parametrize(
    ("device", "jaxlib_version", "processor", "expected"),
    [
        ({"platform": "cpu"}, "0.12.0.1", "flags : fpu avx512f avx512_bf16", "bfloat16"),
        ({"platform": "cpu"}, "0.12.0.1", "flags : fpu amx_bf16 amx_tile", "bfloat16"),
        ({"platform": "cpu"}, "0.12.0.1", "flags : fpu avx512f", "float32"),
        ({"platform": "cpu"}, "0.12.0.1", None, "float32"),
        ({"platform": "cpu"}, "0.10.2", "flags : fpu avx512_bf16", "float32"),
        ({"platform": "gpu", "compute_capability": "9.0"}, "0.10.2", None, "bfloat16"),
        ({"platform": "gpu", "compute_capability": "7.5"}, "0.10.2", None, "float32"),
        ({"platform": "gpu", "compute_capability": "gfx942"}, "0.10.2", None, "bfloat16"),
        ({"platform": "tpu"}, "0.10.2", None, "bfloat16"),
    ],
)
def test_fastest_dtype(device, jaxlib_version, processor, expected, monkeypatch, tmp_path):
    file = tmp_path / "cpuinfo"
    if processor:
        file.write_text(processor)
    monkeypatch.setattr(platform, "_PROCESSOR", file)
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(**device)])
    monkeypatch.setattr(jaxlib, "__version__", jaxlib_version)
    assert platform.fastest_dtype() == expected


def test_a_model_takes_it(monkeypatch):
    monkeypatch.setattr("interlcm_jax.pipeline.fastest_dtype", lambda: "bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(InterLCM.from_pretrained(dtype="auto").weights)} == {"bfloat16"}
