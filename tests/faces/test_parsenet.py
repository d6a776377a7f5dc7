"""The face parser by itself: masks, sizes, batches, loading."""

import statistics

import cv2
import numpy as np
import pytest

from interlcm_jax.errors import WeightsError
from interlcm_jax.faces.parsenet import CLASSES, PASTED, FaceParser, ParseNet, ParseNetConfig, face_mask, load_parsenet
from interlcm_jax.files.safetensors import from_array, write_safetensors
from interlcm_jax.models.weights import flat_weights
from tests.models.random_weights import random_network

MINIATURE = ParseNetConfig.miniature()


@pytest.fixture(scope="module")
def network():
    return random_network(ParseNet, MINIATURE)


def faces(count, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def test_what_is_pasted():
    assert len(CLASSES) == len(PASTED) == 19
    kept = [name for name, pasted in zip(CLASSES, PASTED, strict=True) if pasted]
    assert "hair" in kept
    assert not {"background", "neck", "cloth", "hat", "necklace"} & set(kept)


def test_mask_of_all_skin_is_empty_at_the_border_only():
    mask = face_mask(np.ones((512, 512), np.uint8))
    np.testing.assert_allclose(mask[10:-10, 10:-10], 1, atol=1e-6)
    assert mask.sum() == pytest.approx(492**2)
    assert mask.max() <= 1 + 1e-6


def test_mask_is_soft_at_an_outline():
    """Two blurs of 11 pixels are one of 15.6: the normal distribution across the outline."""
    classes = np.zeros((512, 512), np.uint8)
    classes[:, 256:] = 1
    profile = face_mask(classes)[256]
    assert (profile[255] + profile[256]) / 2 == pytest.approx(0.5, abs=1e-4)
    assert (profile[239] + profile[240]) / 2 == pytest.approx(
        statistics.NormalDist(sigma=11 * 2**0.5).cdf(-16), abs=1e-3
    )


def test_the_size_of_the_network_scales_the_mask():
    mask = face_mask(np.ones((256, 256), np.uint8))
    assert mask[:5].max() == mask[:, -5:].max() == 0
    assert mask[5:-5, 5:-5].min() > 0.999


def test_a_face_gets_the_same_mask_in_any_batch(network):
    parser, batch = FaceParser(network), faces(3, 32)
    together = parser(batch)
    assert together.shape == (3, 32, 32)
    assert together.dtype == np.float32
    assert 0 <= together.min() < together.max() <= 1 + 1e-6
    np.testing.assert_array_equal(together[1:2], parser(batch[1:2]))
    assert parser(batch[:0]).shape == (0, 32, 32)


def test_faces_of_another_size(network):
    masks = FaceParser(network)(faces(2, 64))
    assert masks.shape == (2, 64, 64)
    reduced = np.stack([cv2.resize(face, (32, 32)) for face in faces(2, 64)])
    expected = [cv2.resize(mask, (64, 64)) for mask in FaceParser(network)(reduced)]
    np.testing.assert_array_equal(masks, expected)


def test_loading(tmp_path, network):
    assert load_parsenet(tmp_path) is None
    path = tmp_path / "parsenet.safetensors"
    write_safetensors(path, {p: from_array(np.asarray(v.get_value()), path) for p, v in flat_weights(network).items()})
    batch = faces(2, 32)
    np.testing.assert_array_equal(load_parsenet(tmp_path, config=MINIATURE)(batch), FaceParser(network)(batch))
    half = load_parsenet(tmp_path, config=MINIATURE, dtype="bfloat16")(batch)
    assert half.shape == (2, 32, 32)
    with pytest.raises(WeightsError, match="the sizes in ParseNetConfig"):
        load_parsenet(tmp_path)
