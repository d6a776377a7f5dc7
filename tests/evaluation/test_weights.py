"""Weights of metrics: those that are named must be there, and be whole."""

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.weights import WEIGHTS, Library
from tests.evaluation.pictures import write_set
from tests.evaluation.scored import scored

THREE = [METRICS[name] for name in ("psnr", "ssim", "lpips")]


def test_weights_that_are_named_must_be_there(tmp_path):
    write_set(tmp_path, 2)
    with pytest.raises(InterLCMError, match="no such file or folder"):
        scored(tmp_path, THREE, Library([f"lpips={tmp_path / 'none.safetensors'}"]))
    (tmp_path / "lpips.safetensors").write_bytes(b"broken")
    with pytest.raises(InterLCMError, match="not a whole safetensors file"):
        scored(tmp_path, THREE, Library([str(tmp_path)]))
    with pytest.raises(InterLCMError, match="NAME among lpips"):
        Library(["vgg=here"])


def test_every_metrics_weights_are_known():
    assert {name for metric in METRICS.values() for name in metric.weights} == set(WEIGHTS)
