"""The detector around a network that finds white spots, and around a random one."""

import concurrent.futures

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.faces.retinaface import Predictions, RetinaFace, RetinaFaceConfig
from interlcm_jax.faces.retinaface_detector import RetinaFaceDetector, load_retinaface
from interlcm_jax.files.safetensors import from_array, write_safetensors
from interlcm_jax.models.weights import flat_weights
from tests.models.random_weights import random_network

MINIATURE = RetinaFaceConfig.miniature()
SIDES = (128, 192, 256)
POINTS = np.array([[-4, -4], [4, -4], [0, 0], [-3, 4], [3, 4]])  # relative to a spot's center, pixels


class SpotFinder(nnx.Module):
    """Scores the 16-pixel anchors by how much above the mean's blue their center is; counts how often it is traced."""

    traced = 0

    def __init__(self):
        self.config = RetinaFaceConfig()

    def __call__(self, x, inside):
        type(self).traced += 1
        height, width = x.shape[1:3]
        fine = x[:, 4::8, 4::8, 0].reshape(1, -1) / 256
        rest = jnp.zeros((1, (height * width // 256 + height * width // 1024) * 2))
        scores = jnp.concatenate([jnp.stack([fine, jnp.zeros_like(fine)], -1).reshape(1, -1), rest], axis=1)
        offsets = jnp.asarray(POINTS.reshape(1, 1, 10) / (0.1 * 16), jnp.float32)
        boxes = jnp.zeros((1, scores.shape[1], 4))
        return Predictions(scores, boxes, jnp.broadcast_to(offsets, (1, scores.shape[1], 10)))


def spots(height, width, places, size=4):
    photo = np.zeros((height, width, 3), np.uint8)
    for x, y, brightness in places:
        photo[y - size : y + size, x - size : x + size] = brightness
    return photo


def spot_detector(**options):
    return RetinaFaceDetector(SpotFinder(), **{"min_score": 0.3, "short_side": 128, "padded_sides": SIDES, **options})


def test_faces_come_best_first_and_where_they_are():
    faces = spot_detector()(spots(128, 150, [(20, 12, 220), (100, 60, 250), (44, 92, 190)]))
    assert [face.score for face in faces] == pytest.approx([146 / 256, 116 / 256, 86 / 256])
    for face, center in zip(faces, [(100, 60), (20, 12), (44, 92)], strict=True):
        np.testing.assert_allclose(face.landmarks, center + POINTS, atol=1e-3)
        np.testing.assert_allclose(face.box, [center[0] - 8, center[1] - 8, center[0] + 8, center[1] + 8], atol=1e-3)
    assert all(face.landmarks[0, 0] < face.landmarks[1, 0] for face in faces)


def test_another_bound_on_the_score():
    detector, photo = spot_detector(), spots(128, 150, [(20, 12, 220), (100, 60, 250), (44, 92, 190)])
    assert [len(detector.with_threshold(score)(photo)) for score in (0.2, 0.4, 0.5, 0.6)] == [3, 2, 1, 0]
    assert detector.min_score == 0.3


def test_blue_is_the_first_channel():
    photo = np.zeros((128, 128, 3), np.uint8)
    photo[56:72, 56:72, 2] = 255  # blue in RGB
    assert len(spot_detector(max_overlap=0.1)(photo)) == 1
    assert spot_detector()(photo[..., ::-1]) == []


def test_spots_that_are_one_face():
    """Anchors 8 pixels apart share 0.36 of their union, both borders counted."""
    photo = np.zeros((128, 128, 3), np.uint8)
    photo[60, 52:69] = 250  # the centers of three neighbors
    assert len(spot_detector(max_overlap=0.4)(photo)) == 3
    assert len(spot_detector(max_overlap=0.3)(photo)) == 2


def test_small_photos_are_enlarged_and_large_ones_reduced():
    small = spots(64, 96, [(30, 42, 250)])
    (face,) = spot_detector(max_overlap=0.0)(small)
    np.testing.assert_allclose(face.landmarks[2], [30, 42], atol=2.5)  # anchors stand every 4 of its pixels
    assert face.box[2] - face.box[0] == pytest.approx(8)
    large = spots(400, 512, [(232, 104, 250)], size=8)
    (face,) = spot_detector(max_overlap=0.0)(large)
    np.testing.assert_allclose(face.landmarks[2], [232, 104], atol=1e-3)
    assert face.box[2] - face.box[0] == pytest.approx(32)


def test_the_two_sides_have_their_own_scale():
    """101 x 67 pixels become 193 x 128: by 1.9109 and by 1.9104."""
    (face,) = spot_detector(max_overlap=0.0)(spots(67, 101, [(50, 34, 250)]))
    box_size = face.box[2:] - face.box[:2]
    np.testing.assert_allclose(box_size, [16 * 101 / 193, 16 * 67 / 128], rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(3000, 20), (10, 10), (1, 1), (20, 3000)])
def test_odd_shapes(height, width):
    assert spot_detector()(np.zeros((height, width, 3), np.uint8)) == []


def test_few_programs_are_compiled():
    generator = np.random.default_rng(0)
    detector = spot_detector()
    SpotFinder.traced = 0
    for height, width in generator.integers(30, 600, (40, 2)):
        detector(np.zeros((height, width, 3), np.uint8))
    assert 0 < SpotFinder.traced <= len(SIDES) ** 2


@pytest.mark.parametrize("sides", [(), (48,), (256, 128)])
def test_sides_that_cannot_be(sides):
    with pytest.raises(InterLCMError, match="padded_sides are"):
        spot_detector(padded_sides=sides)


@pytest.fixture(scope="module")
def network():
    return random_network(RetinaFace, MINIATURE)


def photo(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def random_detector(network, **options):
    return RetinaFaceDetector(network, **{"min_score": 0.5, "short_side": 96, "padded_sides": SIDES, **options})


def test_padding_changes_nothing(network):
    picture = photo(100, 120)
    tight = random_detector(network)(picture)
    assert len(tight) > 5
    loose = random_detector(network, padded_sides=(256,))(picture)
    assert len(tight) == len(loose)
    for a, b in zip(tight, loose, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-5)
        np.testing.assert_allclose(a.box, b.box, atol=1e-2)
        np.testing.assert_allclose(a.landmarks, b.landmarks, atol=1e-2)


def test_threads_may_share_a_detector(network):
    detector = random_detector(network)
    pictures = [photo(100 + 30 * i, 120, seed=i) for i in range(6)]
    expected = [detector(picture) for picture in pictures]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(detector, pictures))
    for a, b in zip(actual, expected, strict=True):
        assert [face.score for face in a] == [face.score for face in b]


def save(network, path):
    tensors = {p: from_array(np.asarray(v.get_value()), path) for p, v in flat_weights(network).items()}
    write_safetensors(path, tensors)


def test_loading(tmp_path, network):
    assert load_retinaface(tmp_path) is None
    save(network, tmp_path / "retinaface.safetensors")
    detector = load_retinaface(tmp_path, config=MINIATURE, min_score=0.5, short_side=96, padded_sides=SIDES)
    picture = photo(100, 120)
    expected = random_detector(network)(picture)
    assert [face.score for face in detector(picture)] == [face.score for face in expected]
    with pytest.raises(WeightsError, match="the sizes in RetinaFaceConfig"):
        load_retinaface(tmp_path)


def test_bfloat16(tmp_path, network):
    save(network, tmp_path / "retinaface.safetensors")
    detector = load_retinaface(tmp_path, config=MINIATURE, dtype="bfloat16", min_score=0.5, short_side=96)
    statistics = nnx.state(nnx.merge(detector.graph, detector.weights), nnx.BatchStat)
    assert {leaf.dtype for leaf in jax.tree.leaves(statistics)} == {jnp.dtype(jnp.float32)}
    assert len(detector(photo(100, 120))) > 0
