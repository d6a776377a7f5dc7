"""The metrics' networks at their real sizes against PyTorch, by number."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from interlcm_jax.convert import arcface, fan, inception
from interlcm_jax.metrics.arcface import ArcFace, ArcFaceConfig
from interlcm_jax.metrics.fan import FAN, FANConfig
from interlcm_jax.metrics.inception import InceptionConfig, InceptionV3, features
from tests.parity.arcface_twin import TorchArcFace
from tests.parity.bridge import NETWORK, abstract, assert_close, load, nhwc, run
from tests.parity.calibrated import calibrated
from tests.parity.fan_twin import TorchFAN
from tests.parity.inception_twin import TorchInception

pytestmark = pytest.mark.full


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_inception():
    theirs = calibrated(TorchInception(InceptionConfig()), noise(4, 3, 299, 299, seed=1))
    ours = load(abstract(InceptionV3, InceptionConfig()), theirs.state_dict(), inception.TABLE)
    images = np.random.default_rng(0).integers(0, 256, (2, 512, 512, 3), np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = theirs(F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False))
    assert_close(features(ours, images), expected, NETWORK)


@torch.no_grad()
def test_arcface():
    theirs = calibrated(TorchArcFace(ArcFaceConfig()), noise(16, 1, 128, 128, seed=1))
    ours = load(abstract(ArcFace, ArcFaceConfig()), theirs.state_dict(), arcface.TABLE)
    x = noise(2, 1, 128, 128, seed=0)
    assert_close(run(ours, nhwc(x)), theirs(x), NETWORK)


@torch.no_grad()
def test_fan():
    theirs = calibrated(TorchFAN(FANConfig()), noise(2, 3, 256, 256, seed=1).abs())
    ours = load(abstract(FAN, FANConfig()), theirs.state_dict(), fan.TABLE)
    x = noise(1, 3, 256, 256, seed=0).abs()
    assert_close(run(ours, nhwc(x)), theirs(x), NETWORK)
