"""RetinaFace against PyTorch: blocks, network, padding, anchors and decoding, names, files both ways."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import torch
from flax import nnx

from interlcm_jax.convert.retinaface import table
from interlcm_jax.convert.rules import places
from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.anchors import decode_boxes, decode_landmarks, make_anchors
from interlcm_jax.faces.retinaface import RetinaFace, RetinaFaceConfig, prepare
from interlcm_jax.faces.retinaface_detector import RetinaFaceDetector
from interlcm_jax.models.weights import skeleton
from tests.parity.bridge import (
    BLOCK,
    CLOSED_FORM,
    NETWORK,
    abstract,
    assert_close,
    assert_same_weights,
    load,
    nhwc,
    randomize,
    run,
)
from tests.parity.retinaface_twin import TorchRetinaFace, decoded

MINIATURE = RetinaFaceConfig.miniature()
# Wider than 64, where the rectifiers don't leak, as in the real one.
WIDE = dataclasses.replace(MINIATURE, out_channels=72)
MOBILENET = RetinaFaceConfig(backbone="mobilenet", base_channels=4, layers=(1, 1, 2, 2, 1), out_channels=16)
CONFIGS = pytest.mark.parametrize("config", [MINIATURE, WIDE], ids=["leaky", "wide"])
BOTH = pytest.mark.parametrize("config", [MINIATURE, MOBILENET], ids=["resnet", "mobilenet"])
ALL = pytest.mark.parametrize("config", [MINIATURE, WIDE, MOBILENET], ids=["leaky", "wide", "mobilenet"])


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def twins(config):
    theirs = randomize(TorchRetinaFace(config))
    with torch.no_grad():
        # A MobileNet's features are small: scores that hardly differ would prove little.
        for head in theirs.ClassHead if config.backbone == "mobilenet" else ():
            head.conv1x1.weight.mul_(4)
    return theirs, load(abstract(RetinaFace, config), theirs.state_dict(), table(config))


@torch.no_grad()
def compare(theirs, ours, x, tolerance=BLOCK):
    expected, actual = theirs(x), run(ours, nhwc(x), None)
    assert_close(actual, expected, tolerance)


@pytest.mark.parametrize("block", [0, 1], ids=["projected", "plain"])
def test_bottleneck(block):
    theirs, ours = twins(MINIATURE)
    channels = theirs.body.layer1[block].conv1.in_channels
    compare(theirs.body.layer1[block], ours.body.layer1[block], noise(2, channels, 9, 12))


def test_striding_bottleneck_of_odd_sizes():
    theirs, ours = twins(MINIATURE)
    compare(theirs.body.layer3[0], ours.body.layer3[0], noise(2, 64, 9, 13))


@pytest.mark.parametrize(
    ("stage", "block"), [(1, 1), (1, 2), (2, 0), (2, 1)], ids=["even", "halved", "coarser", "wide"]
)
def test_separable_convolution(stage, block):
    """Of stride 1 and 2, and of odd sizes."""
    theirs, ours = (getattr(network.body, f"stage{stage}")[block] for network in twins(MOBILENET))
    compare(theirs, ours, noise(2, theirs[0].in_channels, 9, 12))


@CONFIGS
def test_context(config):
    theirs, ours = twins(config)
    compare(theirs.ssh2, ours.ssh2, noise(2, config.out_channels, 6, 7))


@CONFIGS
@torch.no_grad()
def test_pyramid_of_odd_sizes(config):
    theirs, ours = twins(config)
    features = [noise(1, 64, 17, 14, seed=1), noise(1, 128, 9, 7, seed=2), noise(1, 256, 5, 4, seed=3)]
    expected = theirs.fpn(features)
    for a, e in zip(run(ours.fpn, [nhwc(f) for f in features], None), expected, strict=True):
        assert_close(a, e, BLOCK)


@BOTH
@torch.no_grad()
def test_backbone(config):
    theirs, ours = twins(config)
    x = noise(2, 3, 75, 64)
    for a, e in zip(run(ours.body, nhwc(x), None), theirs.body(x), strict=True):
        assert_close(a, e, NETWORK)


@ALL
@pytest.mark.parametrize("size", [(2, 96, 64), (1, 101, 75)], ids=["whole", "odd"])
@torch.no_grad()
def test_network(config, size):
    theirs, ours = twins(config)
    batch, height, width = size
    x = noise(batch, 3, height, width)
    scores, boxes, landmarks = run(ours, nhwc(x))
    expected = theirs(x)
    assert scores.shape == (batch, len(make_anchors(config, height, width)))
    for actual, wanted in zip((scores, boxes, landmarks), expected, strict=True):
        assert_close(actual, wanted, NETWORK)


@pytest.mark.parametrize(
    ("config", "size"),
    [*((MINIATURE, size) for size in ((96, 64), (75, 101), (64, 33), (65, 32))), (MOBILENET, (75, 101))],
)
@torch.no_grad()
def test_padding_changes_nothing_on_the_photo(config, size):
    """PyTorch runs the photo as it is; here it is padded with rubbish, which is to be ignored."""
    theirs, ours = twins(config)
    (height, width), padded = size, (128, 160)
    x = noise(1, 3, height, width)
    rubbish = 10 * noise(1, 3, *padded, seed=1)
    rubbish[:, :, :height, :width] = x
    inside = jnp.zeros((1, *padded, 1)).at[:, :height, :width].set(1)
    actual = run(ours, nhwc(rubbish), inside)
    anchors = {tuple(anchor): i for i, anchor in enumerate(make_anchors(config, *padded))}
    on_photo = np.array([anchors[tuple(anchor)] for anchor in make_anchors(config, height, width)])
    for a, e in zip(actual, theirs(x), strict=True):
        assert_close(a[:, on_photo], e, NETWORK)
    assert not np.delete(actual.scores, on_photo, axis=1).any()


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_anchors_and_decoding(size):
    generator, config = np.random.default_rng(0), RetinaFaceConfig()
    anchors = make_anchors(config, *size)
    boxes, landmarks = (generator.standard_normal((1, len(anchors), n)).astype(np.float32) for n in (4, 10))
    actual_boxes = decode_boxes(config, jnp.asarray(boxes), jnp.asarray(anchors))
    actual_landmarks = decode_landmarks(config, jnp.asarray(landmarks), jnp.asarray(anchors))
    for i in [*range(0, len(anchors), 37), len(anchors) - 1]:
        count, box, points = decoded(boxes[0, i].tolist(), landmarks[0, i].tolist(), *size, i)
        assert count == len(anchors)
        # In units of the largest coordinate, which is a few hundred pixels.
        scale = float(max(box.abs().max(), points.abs().max()))
        np.testing.assert_allclose(actual_boxes[0, i] / scale, box / scale, atol=CLOSED_FORM, rtol=0)
        np.testing.assert_allclose(actual_landmarks[0, i] / scale, points / scale, atol=CLOSED_FORM, rtol=0)


def test_preparation():
    """BGR less its mean, as OpenCV's order has it."""
    rgb = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.float32)
    expected = torch.from_numpy(rgb).flip(-1) - torch.tensor([104.0, 117.0, 123.0])
    np.testing.assert_array_equal(prepare(jnp.asarray(rgb)), expected.numpy())


@pytest.mark.parametrize(
    ("config", "count"), [(RetinaFaceConfig(), 27_293_600), (RetinaFaceConfig.mobilenet(), 426_608)]
)
def test_real_size_has_the_keys_and_shapes_of_pytorch(config, count):
    network = abstract(RetinaFace, config)
    assert_same_weights(network, lambda: TorchRetinaFace(config), table(config), count)
    photo = jax.ShapeDtypeStruct((1, 640, 864, 3), jnp.float32)
    predictions = nnx.eval_shape(lambda network, x: network(x), network, photo)
    assert predictions.boxes.shape == (1, 2 * (80 * 108 + 40 * 54 + 20 * 27), 4)


LEVELS = {
    "fpn.output3.0.weight",
    "fpn.merge1.1.weight",
    "ssh1.conv3X3.0.weight",
    "ssh2.conv5X5_1.1.running_var",
    "ssh3.conv7X7_2.0.weight",
    "ssh3.conv7x7_3.1.bias",
    "ClassHead.0.conv1x1.weight",
    "BboxHead.1.conv1x1.bias",
    "LandmarkHead.2.conv1x1.weight",
}
BODIES = {
    "resnet": {
        "body.conv1.weight",
        "body.bn1.running_var",
        "body.layer1.0.downsample.0.weight",
        "body.layer1.0.downsample.1.running_mean",
        "body.layer3.5.conv2.weight",
        "body.layer4.2.bn3.bias",
    },
    "mobilenet": {
        "body.stage1.0.0.weight",
        "body.stage1.0.1.running_var",
        "body.stage1.5.0.weight",
        "body.stage1.5.4.bias",
        "body.stage2.5.3.weight",
        "body.stage3.1.1.running_mean",
    },
}


@pytest.mark.parametrize("config", [RetinaFaceConfig(), RetinaFaceConfig.mobilenet()], ids=["resnet", "mobilenet"])
def test_some_names_of_the_release(config):
    """Written down by hand: the twin and the table can't both be wrong in the same way."""
    keys = {place.key for place in places(skeleton(abstract(RetinaFace, config)), table(config)).values()}
    assert keys >= LEVELS | BODIES[config.backbone]
    assert RetinaFaceConfig.published(keys) == config
    assert RetinaFaceConfig.published(skeleton(abstract(RetinaFace, config))) == config


def test_config_round_trip():
    assert RetinaFaceConfig.from_json(json.loads(json.dumps(MINIATURE.to_json()))) == MINIATURE


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"backbone": "vgg"}, "backbone is 'vgg', but must be resnet or mobilenet"),
        ({"layers": (1, 1, 1)}, "layers has 3 entries, but a resnet has blocks of 4 widths"),
        ({"backbone": "mobilenet"}, "layers has 4 entries, but a mobilenet has blocks of 5 widths"),
    ],
)
def test_sizes_that_contradict_each_other(sizes, message):
    with pytest.raises(InterLCMError, match=message):
        RetinaFaceConfig(**sizes)


PORTRAIT_BOX = (178, 60, 268, 188)  # of the face of Eileen Collins (NASA, public domain), by eye: brows' top to chin


@pytest.mark.long
@torch.no_grad()
def test_real_weights_on_a_real_photo():
    """Of `mobilenet0.25_Final.pth`, which INTERLCM_RETINAFACE_MOBILENET names; in the portrait they see one face."""
    path = Path(os.environ.get("INTERLCM_RETINAFACE_MOBILENET", "mobilenet0.25_Final.pth"))
    if not path.is_file():
        pytest.skip("INTERLCM_RETINAFACE_MOBILENET names no file")
    config = RetinaFaceConfig.mobilenet()
    state = torch.load(path, map_location="cpu", weights_only=True)
    theirs = TorchRetinaFace(config).eval()
    theirs.load_state_dict(state, strict=True)
    ours = load(abstract(RetinaFace, config), state, table(config))
    photo = prepare(jnp.asarray(skimage.data.astronaut()[None], jnp.float32))
    actual, expected = run(ours, photo), theirs(torch.from_numpy(np.array(photo)).permute(0, 3, 1, 2))
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, NETWORK)
    [face] = RetinaFaceDetector(ours)(skimage.data.astronaut())
    np.testing.assert_allclose(face.box, PORTRAIT_BOX, atol=10)
