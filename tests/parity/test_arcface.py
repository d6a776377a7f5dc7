"""The face recognizers against PyTorch: blocks, network, Deg and IDA by the scripts' steps, names, sizes, files."""

import dataclasses
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from interlcm_jax.convert.arcface import TABLE
from interlcm_jax.convert.rules import places
from interlcm_jax.errors import WeightsError
from interlcm_jax.metrics import arcface
from interlcm_jax.metrics.arcface import ArcFace, ArcFaceConfig
from interlcm_jax.metrics.identity import deg, ida, similarity
from interlcm_jax.metrics.weights import IDA
from interlcm_jax.models.weights import skeleton
from tests.parity.arcface_twin import TorchArcFace
from tests.parity.bridge import BLOCK, NETWORK, abstract, assert_close, assert_same_weights, load, nhwc, run
from tests.parity.calibrated import calibrated, thin

PLAIN = ArcFaceConfig.miniature()
WITH_SE = dataclasses.replace(PLAIN, squeeze_excitation=True)
SIZE = PLAIN.image_size


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(config):
    theirs = calibrated(TorchArcFace(config), noise(16, 1, SIZE, SIZE, seed=1))
    return theirs, load(abstract(ArcFace, config), theirs.state_dict(), TABLE)


@pytest.fixture(scope="module", params=[PLAIN, WITH_SE], ids=["plain", "squeeze and excitation"])
def twins(request):
    return pair(request.param)


@pytest.fixture(scope="module")
def plain():
    return pair(PLAIN)


@pytest.fixture
def files(tmp_path):
    """Restored faces and originals as PNG, near and far: the script's measure of the nearest pair loses digits."""
    rng = np.random.default_rng(0)
    hq = cv2.GaussianBlur(rng.uniform(0, 255, (4, 60, 76, 3)).reshape(4 * 60, 76, 3), (9, 9), 2).reshape(4, 60, 76, 3)
    hq = np.clip((hq - 127) * 4 + 127, 0, 255)
    restored = np.clip(hq + rng.normal(0, 1, hq.shape) * np.array([8, 30, 90, 200])[:, None, None, None], 0, 255)
    names = []
    for i, images in enumerate(zip(restored, hq, strict=True)):
        names.append([str(tmp_path / f"{i}_{kind}.png") for kind in ("restored", "hq")])
        for name, image in zip(names[-1], images, strict=True):
            cv2.imwrite(name, image.astype(np.uint8)[..., ::-1])
    return names, restored.astype(np.uint8), hq.astype(np.uint8)


def angles(theirs, prepare, names):
    """Of the embeddings, as in the scripts but in float64."""
    found = []
    for pair_of_names in names:
        a, b = (theirs(prepare(name)[None])[0].double().numpy() for name in pair_of_names)
        found.append(np.arccos(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))))
    return np.array(found)


def deg_input(name):
    gray = cv2.resize(cv2.imread(name, 0), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return (torch.from_numpy(gray)[None].float() - 127.5) / 127.5


def ida_input(name):
    x = torch.from_numpy(cv2.imread(name).astype(np.float32) / 255.0).permute(2, 0, 1)[None]
    gray = 0.2989 * x[:, 0] + 0.5870 * x[:, 1] + 0.1140 * x[:, 2]
    return F.interpolate(gray[:, None], (SIZE, SIZE), mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize(("part", "index"), [("layer1", 0), ("layer2", 0)])
@torch.no_grad()
def test_block(twins, part, index):
    theirs, ours = (getattr(network, part)[index] for network in twins)
    x = noise(2, PLAIN.base_channels, 8, 12)
    assert_close(run(ours, nhwc(x)), theirs(x), BLOCK)


@torch.no_grad()
def test_network(twins):
    theirs, ours = twins
    x = noise(3, 1, SIZE, SIZE)
    expected = theirs(x)
    assert expected.std(0).mean() > 0.1, "the faces must make a difference"
    assert_close(run(ours, nhwc(x)), expected, NETWORK)


@torch.no_grad()
def test_deg(plain, files):
    theirs, ours = plain
    names, restored, hq = files
    expected = angles(theirs, deg_input, names)
    assert np.degrees(expected).min() > 1
    assert np.ptp(np.degrees(expected)) > 10
    np.testing.assert_allclose(deg(ours, restored, hq), np.degrees(expected), atol=np.degrees(NETWORK))
    floats = (jnp.asarray(images / 127.5 - 1, jnp.float32) + 1e-3 for images in (restored, hq))
    np.testing.assert_allclose(similarity(ours, *floats), np.cos(expected), atol=NETWORK)


@torch.no_grad()
def test_ida(plain, files):
    theirs, ours = plain
    names, restored, hq = files
    expected = angles(theirs, ida_input, names)
    np.testing.assert_allclose(ida(ours, restored, hq), expected, atol=NETWORK)
    assert np.abs(expected - angles(theirs, deg_input, names)).min() > 1e-3, "Deg in radians is another number"


def test_a_pair_is_on_its_own(plain, files):
    """Whatever else is in the batch, so the evaluator may pad and split it."""
    _, restored, hq = files
    whole = deg(plain[1], restored, hq)
    np.testing.assert_allclose(deg(plain[1], restored[2:3], hq[2:3]), whole[2:3], atol=np.degrees(NETWORK))


@pytest.mark.parametrize(("se", "expected"), [(False, 25_627_081), (True, 25_716_169)])
def test_real_size_has_the_keys_and_shapes_of_pytorch(se, expected):
    config = ArcFaceConfig(squeeze_excitation=se)
    network = abstract(ArcFace, config)
    assert_same_weights(network, lambda: TorchArcFace(config), TABLE, expected)
    faces = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.uint8)
    assert jax.eval_shape(deg, network, faces, faces).shape == (2,)


def test_some_names_of_the_release():
    """Written down by hand: the twin and the table can't both be wrong in the same way."""
    network = abstract(ArcFace, ArcFaceConfig(squeeze_excitation=True))
    found = {place.key: place.shape for place in places(skeleton(network), TABLE).values()}
    assert {
        "conv1.weight": (64, 1, 3, 3),
        "prelu.weight": (1,),
        "layer1.0.bn0.running_mean": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.running_var": (128,),
        "layer3.1.prelu.weight": (1,),
        "layer3.0.se.fc.0.weight": (16, 256),
        "layer3.0.se.fc.1.weight": (1,),
        "layer3.0.se.fc.2.bias": (256,),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
        "bn4.weight": (512,),
        "fc5.weight": (512, 512 * 8 * 8),
        "bn5.running_var": (512,),
    }.items() <= found.items()
    assert not any(key.startswith("layer1.0.downsample") for key in found)


@pytest.mark.parametrize("se", [False, True])
def test_the_published_file_loads(tmp_path, se):
    """Its keys and shapes, with other numbers, as DataParallel names them; what it has says which network it is."""
    with torch.device("meta"):
        theirs = TorchArcFace(ArcFaceConfig(squeeze_excitation=se))
    torch.save({f"module.{key}": value for key, value in thin(theirs).items()}, tmp_path / "resnet18_110.pth")
    network = arcface.load(tmp_path / "resnet18_110.pth", IDA)
    assert network.config == ArcFaceConfig(squeeze_excitation=se)
    assert (network.layer4[1].se is not None) == se
    assert float(network.prelu.slope[0]) == 0.5


def test_another_file_is_refused(tmp_path):
    state = TorchArcFace(PLAIN).state_dict()
    del state["bn5.weight"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth: 1 missing keys: bn5\.weight"):
        arcface.load(tmp_path / "other.pth", config=PLAIN)


def test_config_round_trip():
    assert ArcFaceConfig.from_json(json.loads(json.dumps(WITH_SE.to_json()))) == WITH_SE
