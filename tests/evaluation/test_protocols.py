"""Protocols name metrics that exist, and metrics are chosen from them."""

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.protocols import PROTOCOLS, find_protocol


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_protocols_are_whole(protocol):
    metrics = protocol.choose()
    assert len({metric.title for metric in metrics} | {metric.name for metric in metrics}) >= len(metrics)
    for metric in metrics:
        assert metric.how
        assert metric.source
        assert (metric.image_scores is None) != (metric.set_score is None)
        assert metric.image_scores is None or len(metric.measures) == 1


def test_metrics_are_chosen_by_name_or_title():
    assert [metric.name for metric in find_protocol("vqfr").choose(["SSIM", "psnr-matched"])] == [
        "psnr-matched",
        "ssim-matched",
    ]
    with pytest.raises(InterLCMError, match="vqfr has no metric psnr-y; it has psnr-matched, ssim-matched"):
        find_protocol("vqfr").choose(["psnr-y"])
    with pytest.raises(InterLCMError, match="choose one of basicsr"):
        find_protocol("basic")


def test_what_an_installation_brings_needs_no_weights():
    metrics = find_protocol("installed").choose()
    assert [metric.name for metric in metrics] == ["psnr", "ssim", "onet", "sharpness"]
    assert not any(metric.weights for metric in metrics)
