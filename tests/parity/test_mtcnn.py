"""MTCNN's networks against a PyTorch computation from the same files, layer by layer as Keras has them."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from interlcm_jax.faces.mtcnn import load_networks, read_weights
from tests.parity.bridge import run

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def networks():
    return load_networks()


def conv_prelu(x: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
    """Keras' kernels are HWIO, and its slopes are shared over the height and width."""
    x = F.conv2d(x, next(weights).permute(3, 2, 0, 1), next(weights))
    return F.prelu(x, next(weights).flatten())


def linear(x: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
    return x @ next(weights) + next(weights)


def files(name: str) -> Iterator[torch.Tensor]:
    return iter([torch.from_numpy(array) for array in read_weights(name)])


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def assert_close(actual, expected: torch.Tensor) -> None:
    assert actual.shape == tuple(expected.shape)
    assert expected.std() > 1e-3, "nothing is compared"
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("shape", [(1, 12, 12), (2, 40, 64)])
def test_proposal_network(networks, shape):
    weights, image = files("pnet"), pixels(*shape, 3)
    x = F.max_pool2d(conv_prelu(torch.from_numpy(image).permute(0, 3, 1, 2), weights), 2, ceil_mode=True)
    x = conv_prelu(conv_prelu(x, weights), weights)
    box = F.conv2d(x, next(weights).permute(3, 2, 0, 1), next(weights))
    score = F.conv2d(x, next(weights).permute(3, 2, 0, 1), next(weights)).softmax(1)[:, 1]
    scores, offsets = run(networks[0], jnp.asarray(image))
    np.testing.assert_allclose(scores, score, atol=TOLERANCE, rtol=0)
    assert_close(offsets, box.permute(0, 2, 3, 1))
    assert next(weights, None) is None


@pytest.mark.parametrize(("name", "number", "pools"), [("rnet", 1, (3, 3, 1)), ("onet", 2, (3, 3, 2, 1))])
def test_refinement_networks(networks, name, number, pools):
    network = networks[number]
    weights, crops = files(name), pixels(5, network.config.size, network.config.size, 3)
    x = torch.from_numpy(crops).permute(0, 3, 1, 2)
    for i, pool in enumerate(pools):
        x = conv_prelu(x, weights)
        # In Keras the first and the third are padded ("same"), the second isn't.
        x = F.max_pool2d(x, pool, 2, ceil_mode=i != 1) if pool > 1 else x
    x = x.permute(0, 3, 2, 1).flatten(1)
    x = F.prelu(linear(x, weights), next(weights))
    box = linear(x, weights)
    points = linear(x, weights) if name == "onet" else torch.zeros(5, 0)
    score = linear(x, weights).softmax(1)[:, 1]
    scores, offsets, landmarks = run(network, jnp.asarray(crops))
    assert_close(scores, score)
    assert_close(offsets, box)
    assert landmarks.shape == (5, points.shape[1] // 2, 2)
    np.testing.assert_allclose(np.concatenate([landmarks[..., 0], landmarks[..., 1]], axis=1), points, atol=TOLERANCE)
    assert next(weights, None) is None
