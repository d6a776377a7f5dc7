"""FID's Inception-v3 against PyTorch: blocks, network, the images' way in, names and sizes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from interlcm_jax.convert.inception import TABLE
from interlcm_jax.convert.rules import places
from interlcm_jax.errors import WeightsError
from interlcm_jax.metrics import inception
from interlcm_jax.metrics.inception import InceptionConfig, InceptionV3, features
from interlcm_jax.models.weights import skeleton
from tests.parity.bridge import BLOCK, NETWORK, abstract, assert_close, assert_same_weights, load, nhwc, run
from tests.parity.calibrated import calibrated, thin
from tests.parity.inception_twin import TorchInception

MINIATURE = InceptionConfig.miniature()
SIZE = MINIATURE.image_size


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def twins():
    theirs = calibrated(TorchInception(MINIATURE), noise(8, 3, SIZE, SIZE, seed=1))
    return theirs, load(abstract(InceptionV3, MINIATURE), theirs.state_dict(), TABLE)


@pytest.mark.parametrize(
    "name", ["Conv2d_1a_3x3", "Mixed_5b", "Mixed_6a", "Mixed_6b", "Mixed_7a", "Mixed_7b", "Mixed_7c"]
)
@torch.no_grad()
def test_block(twins, name):
    theirs, ours = (getattr(network, name) for network in twins)
    channels = next(theirs.parameters()).shape[1]
    # Below zero too: there padding by zeros would win a maximum.
    x = 0.3 * (noise(2, channels, 9, 12) - 1)
    assert_close(run(ours, nhwc(x)), theirs(x), BLOCK)


@torch.no_grad()
def test_network(twins):
    theirs, ours = twins
    x = noise(3, 3, SIZE, 120)
    expected = theirs(x)
    assert expected.std(0).mean() > 0.1, "the images must make a difference"
    actual = run(ours, nhwc(x))
    assert_close(actual, expected, NETWORK)
    assert_close(run(ours, actual, method="logits"), theirs.fc(expected), NETWORK)


@pytest.mark.parametrize(("shape", "floats"), [((160, 160), False), ((90, 131), True)])
@torch.no_grad()
def test_features(twins, shape, floats):
    """From files' levels, as BasicSR's data loader and pytorch-fid's wrapper take them."""
    theirs, ours = twins
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    expected = theirs(F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False))
    given = jnp.asarray(images / 127.5 - 1, jnp.float32) + 1e-3 if floats else images
    assert_close(features(ours, given), expected, NETWORK)


def test_an_image_is_on_its_own(twins):
    """Whatever else is in the batch, so the evaluator may pad and split it."""
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    whole = features(twins[1], images)
    images[1:] = 0
    np.testing.assert_allclose(features(twins[1], images)[0], whole[0], atol=NETWORK)


def test_real_size_has_the_keys_and_shapes_of_pytorch():
    network = abstract(InceptionV3, InceptionConfig())
    # torchvision documents 27,161,264 for 1000 classes and with the auxiliary classifier's 3,326,696.
    assert_same_weights(network, lambda: TorchInception(InceptionConfig()), TABLE, 27_161_264 - 3_326_696 + 8 * 2049)
    faces = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.uint8)
    assert jax.eval_shape(features, network, faces).shape == (2, 2048)


def test_some_names_of_the_release():
    """Written down by hand: the twin and the table can't both be wrong in the same way."""
    found = {
        place.key: place.shape for place in places(skeleton(abstract(InceptionV3, InceptionConfig())), TABLE).values()
    }
    assert {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_3b_1x1.bn.running_mean": (80,),
        "Mixed_5b.branch1x1.bn.running_var": (64,),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5c.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6c.branch7x7_2.conv.weight": (160, 160, 1, 7),
        "Mixed_6e.branch7x7dbl_4.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch7x7x3_4.bn.bias": (192,),
        "Mixed_7b.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3dbl_1.conv.weight": (448, 2048, 1, 1),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }.items() <= found.items()


def test_the_published_file_loads(tmp_path):
    """Its keys and shapes, with other numbers."""
    file = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    with torch.device("meta"):
        theirs = TorchInception(InceptionConfig())
    torch.save(thin(theirs), file)
    network = inception.load(file)
    assert network.config == InceptionConfig()
    assert network.Mixed_7c.branch_pool.conv.kernel.shape == (1, 1, 2048, 192)
    assert float(network.fc.bias[3]) == 0.5


def test_another_file_is_refused(tmp_path):
    """torchvision's has the auxiliary classifier, and other classes."""
    with torch.device("meta"):
        theirs = TorchInception(InceptionConfig(num_classes=1000))
    state = thin(theirs)
    torch.save({**state, "AuxLogits.fc.bias": torch.zeros(1000)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"unexpected keys: AuxLogits\.fc\.bias[\s\S]*2 mis-shaped keys: fc\.bias"):
        inception.load(tmp_path / "other.pth")


def test_config_round_trip():
    assert InceptionConfig.from_json(json.loads(json.dumps(MINIATURE.to_json()))) == MINIATURE
