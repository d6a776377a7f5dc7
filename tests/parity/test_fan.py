"""The landmark network against PyTorch: blocks, network, points and LMD by the script's steps, names, sizes, files."""

import dataclasses
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from interlcm_jax.convert.fan import TABLE
from interlcm_jax.convert.rules import places
from interlcm_jax.errors import WeightsError
from interlcm_jax.metrics import fan
from interlcm_jax.metrics.fan import FAN, FANConfig
from interlcm_jax.metrics.landmarks import landmarks, lmd, peaks
from interlcm_jax.models.weights import skeleton
from tests.parity.bridge import BLOCK, NETWORK, abstract, assert_close, assert_same_weights, load, nhwc, run
from tests.parity.calibrated import calibrated, thin
from tests.parity.fan_twin import TorchFAN, script_points

MINIATURE = FANConfig.miniature()
SIZE, CELLS = MINIATURE.image_size, MINIATURE.heatmap_size


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(config):
    theirs = calibrated(TorchFAN(config), torch.rand(4, 3, config.image_size, config.image_size))
    return theirs, load(abstract(FAN, config), theirs.state_dict(), TABLE)


@pytest.fixture(scope="module")
def twins():
    return pair(MINIATURE)


def test_first_layer_sees_where_it_looks(twins):
    theirs, ours = twins
    x = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(run(ours.conv1, nhwc(x)), theirs.conv1(x), BLOCK)


@pytest.mark.parametrize("name", ["conv2", "conv3", "conv4"])
@torch.no_grad()
def test_block(twins, name):
    theirs, ours = (getattr(network, name) for network in twins)
    x = noise(2, next(theirs.parameters()).shape[0], 8, 12)
    assert_close(run(ours, nhwc(x)), theirs(x), BLOCK)


@torch.no_grad()
def test_hourglass_with_outline(twins):
    theirs, ours = twins
    x, heatmaps = noise(2, MINIATURE.channels, 16, 16), 0.1 * noise(2, 6, 16, 16, seed=1)
    actual = run(ours.stacks[1].m, nhwc(x), nhwc(heatmaps)[..., -1:])
    assert_close(actual, theirs.m1(x, heatmaps), BLOCK)


@torch.no_grad()
def test_network(twins):
    theirs, ours = twins
    x = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    expected = theirs(x)
    assert expected.std(0).mean() > 0.1, "the faces must make a difference"
    assert_close(run(ours, nhwc(x)), expected, NETWORK)


def faces(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, *shape, 3), np.uint8)


def script_landmarks(theirs, image):
    """Of one RGB image, by the script, which is given BGR."""
    height, width, _ = image.shape
    resized = cv2.resize(image[..., ::-1], (SIZE, SIZE))
    x = torch.from_numpy(np.ascontiguousarray(resized[..., ::-1].transpose(2, 0, 1))).float() / 255.0
    return script_points(theirs(x[None])[0, :-1].numpy()) * [width / CELLS, height / CELLS]


@torch.no_grad()
def test_landmarks(twins):
    theirs, ours = twins
    images = faces(96, 150)
    expected = np.stack([script_landmarks(theirs, image) for image in images])
    assert np.ptp(expected, axis=0).max() > 4, "the faces must make a difference"
    floats = jnp.asarray(images / 127.5 - 1, jnp.float32) + 1e-3
    np.testing.assert_allclose(landmarks(ours, floats), expected, rtol=1e-6)


@torch.no_grad()
def test_lmd(twins):
    theirs, ours = twins
    restored, hq = faces(128, 128), faces(128, 128, seed=1)
    both = ([script_landmarks(theirs, image) for image in images] for images in (restored, hq))
    expected = [np.sqrt(((a - b) ** 2).sum(1)).mean() for a, b in zip(*both, strict=True)]
    np.testing.assert_allclose(lmd(ours, restored, hq), expected, rtol=1e-6)
    np.testing.assert_array_equal(lmd(ours, hq, hq), np.zeros(3))


@pytest.mark.parametrize(
    "forced",
    [{}, {2: (15, 3)}, {1: (0, 5)}, {0: (0, 0)}, {0: (1, 0)}, {0: (0, 9), 4: (15, 14)}],
    ids=["anywhere", "last row", "first row", "first cell", "second row's first", "both"],
)
def test_peaks_are_the_scripts(forced):
    """At the border too, where one peak changes what the others of its image are compared with."""
    heatmaps = np.random.default_rng(0).uniform(0, 1, (3, 5, 16, 16)).astype(np.float32)
    heatmaps[:, :, [0, -1]] *= 0.5
    # The cells that all may be compared with, high and low enough to make a difference.
    heatmaps[:, :, 0, 0], heatmaps[:, :, -1, -1] = 0.9, 0.1
    for point, (row, column) in forced.items():
        heatmaps[1, point, row, column] = 2
    expected = np.stack([script_points(image) for image in heatmaps])
    np.testing.assert_array_equal(peaks(jnp.asarray(heatmaps.transpose(0, 2, 3, 1))), expected)


def test_real_size_has_the_keys_and_shapes_of_pytorch():
    network = abstract(FAN, FANConfig())
    assert_same_weights(network, lambda: TorchFAN(FANConfig()), TABLE, 24_153_036)
    images = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.uint8)
    assert jax.eval_shape(landmarks, network, images).shape == (2, 98, 2)


def test_some_names_of_the_release():
    """Written down by hand: the twin and the table can't both be wrong in the same way."""
    found = {place.key: place.shape for place in places(skeleton(abstract(FAN, FANConfig())), TABLE).values()}
    assert {
        "conv1.conv.weight": (64, 6, 7, 7),
        "conv1.conv.bias": (64,),
        "bn1.running_var": (64,),
        "conv2.downsample.0.weight": (64,),
        "conv2.downsample.2.weight": (128, 64, 1, 1),
        "conv4.conv3.weight": (64, 64, 3, 3),
        "m0.coordconv.conv.weight": (256, 259, 1, 1),
        "m3.coordconv.conv.weight": (256, 261, 1, 1),
        "m1.b2_plus_1.bn3.running_mean": (64,),
        "m2.b3_4.conv1.weight": (128, 256, 3, 3),
        "top_m_2.bn1.bias": (256,),
        "conv_last3.bias": (256,),
        "bn_end0.weight": (256,),
        "l3.weight": (99, 256, 1, 1),
        "bl2.bias": (256,),
        "al0.weight": (256, 99, 1, 1),
    }.items() <= found.items()
    assert not {"bl3.weight", "al3.weight", "m0.b2_plus_2.conv1.weight", "conv3.downsample.0.weight"} & found.keys()


def test_the_published_file_loads(tmp_path):
    """Its keys and shapes, with other numbers, under the name that AdaptiveWingLoss stores them by."""
    with torch.device("meta"):
        theirs = TorchFAN(FANConfig())
    torch.save({"epoch": 3, "state_dict": thin(theirs)}, tmp_path / "alignment_WFLW_4HG.pth")
    network = fan.load(tmp_path / "alignment_WFLW_4HG.pth")
    assert network.config == FANConfig()
    assert float(network.stacks[3].l.bias[0]) == 0.5


def test_another_file_is_refused(tmp_path):
    torch.save(TorchFAN(dataclasses.replace(MINIATURE, num_stacks=1)).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"missing keys: al0\.bias"):
        fan.load(tmp_path / "other.pth", config=MINIATURE)


def test_config_round_trip():
    assert FANConfig.from_json(json.loads(json.dumps(MINIATURE.to_json()))) == MINIATURE
