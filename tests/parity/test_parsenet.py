"""ParseNet against PyTorch: blocks, network, names, and the mask against the published steps."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from interlcm_jax.convert.parsenet import TABLE
from interlcm_jax.convert.rules import places
from interlcm_jax.faces.parsenet import FaceParser, ParseNet, ParseNetConfig, face_mask
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
from tests.parity.parsenet_twin import TorchParseNet

MINIATURE = ParseNetConfig.miniature()


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def twins(config=MINIATURE):
    theirs = randomize(TorchParseNet(config))
    return theirs, load(abstract(ParseNet, config), theirs.state_dict(), TABLE)


@pytest.mark.parametrize(
    ("part", "index"), [("encoder", 0), ("encoder", 1), ("encoder", 2), ("body", 0), ("decoder", 1)]
)
@torch.no_grad()
def test_block(part, index):
    theirs, ours = (getattr(network, part)[index] for network in twins())
    channels = next(theirs.parameters()).shape[1]
    x = noise(2, channels, 8, 12)
    assert_close(run(ours, nhwc(x)), theirs(x), BLOCK)


@torch.no_grad()
def test_network():
    theirs, ours = twins()
    x = noise(2, 3, 32, 40)
    for actual, expected in zip(run(ours, nhwc(x)), theirs(x), strict=True):
        assert_close(actual, expected, NETWORK)


def published_mask(classes):
    """Step by step as facexlib pastes: 0 to 255 in float64."""
    values = [0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 255, 0, 0, 0]
    mask = np.zeros(classes.shape)
    for number, value in enumerate(values):
        mask[classes == number] = value
    mask = cv2.GaussianBlur(cv2.GaussianBlur(mask, (101, 101), 11), (101, 101), 11)
    mask[:10, :], mask[-10:, :], mask[:, :10], mask[:, -10:] = 0, 0, 0, 0
    return mask / 255


def test_mask():
    coarse = np.random.default_rng(0).integers(0, 19, (8, 8), np.uint8)
    classes = np.kron(coarse, np.ones((64, 64), np.uint8))
    mask = face_mask(classes)
    assert mask.dtype == np.float32
    np.testing.assert_allclose(mask, published_mask(classes), atol=CLOSED_FORM)


@torch.no_grad()
def test_parser():
    """From 8-bit faces to masks; PyTorch classifies the pixels, and the masks follow."""
    theirs, ours = twins()
    faces = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    image = (torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    classes = theirs(image)[0].argmax(1).numpy().astype(np.uint8)
    masks = FaceParser(ours)(faces)
    assert masks.std() > 0.05
    np.testing.assert_allclose(masks, np.stack([face_mask(c) for c in classes]), atol=CLOSED_FORM)


def test_real_size_has_the_keys_and_shapes_of_pytorch():
    network = abstract(ParseNet, ParseNetConfig())
    assert_same_weights(network, lambda: TorchParseNet(ParseNetConfig()), TABLE, 21_303_254)
    faces = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32)
    logits, image = nnx.eval_shape(lambda network, x: network(x), network, faces)
    assert (logits.shape, image.shape) == ((2, 512, 512, 19), (2, 512, 512, 3))


def test_some_names_of_the_release():
    """Written down by hand: the twin and the table can't both be wrong in the same way."""
    keys = {place.key for place in places(skeleton(abstract(ParseNet, ParseNetConfig())), TABLE).values()}
    assert keys >= {
        "encoder.0.conv2d.weight",
        "encoder.0.conv2d.bias",
        "encoder.1.shortcut_func.conv2d.bias",
        "encoder.4.conv2.norm.norm.running_mean",
        "body.9.conv1.conv2d.weight",
        "body.0.conv2.norm.norm.weight",
        "decoder.3.shortcut_func.conv2d.weight",
        "out_img_conv.conv2d.bias",
        "out_mask_conv.conv2d.weight",
    }
    assert not any(key.startswith("body.0.shortcut_func") for key in keys)
    assert "encoder.1.conv1.conv2d.bias" not in keys


def test_config_round_trip():
    assert ParseNetConfig.from_json(json.loads(json.dumps(MINIATURE.to_json()))) == MINIATURE
