"""The detector on a portrait of the astronaut Eileen Collins (NASA, public domain), and on what is made from it."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import cv2
import jax
import numpy as np
import pytest
import skimage.data

from interlcm_jax.faces import mtcnn_detector
from interlcm_jax.faces.mtcnn_detector import MTCNN

# Eyes, nose and corners of the mouth in the portrait, by eye.
LANDMARKS = np.array([[202.5, 101], [246.5, 103], [224, 127], [203, 139.5], [246.5, 139.5]])
EYES = 44
TOLERANCE = 0.15 * EYES  # of the worst of the five


@pytest.fixture(scope="module")
def detect():
    return MTCNN()


@pytest.fixture(scope="module")
def portrait():
    return skimage.data.astronaut()


def assert_landmarks(face, expected, scale=1.0):
    error = np.linalg.norm(face.landmarks - expected, axis=1).max()
    assert error <= TOLERANCE * scale, f"{error:.1f} pixels off"


def test_finds_the_face_once(detect, portrait):
    (face,) = detect(portrait)
    assert_landmarks(face, LANDMARKS)
    left, top, right, bottom = face.box
    assert ((face.landmarks > [left, top]) & (face.landmarks < [right, bottom])).all()
    assert 80 < right - left < 120
    assert 90 < bottom - top < 140
    assert 0.85 < face.score <= 1


@pytest.mark.parametrize("angle", [-30, -20, 20, 30])
def test_turned_faces(detect, portrait, angle):
    matrix = cv2.getRotationMatrix2D((225, 120), angle, 1)
    turned = cv2.warpAffine(portrait, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    (face,) = detect(turned)
    assert_landmarks(face, LANDMARKS @ matrix[:, :2].T + matrix[:, 2])


def test_a_face_on_its_head_is_seen_as_such(detect, portrait):
    """Its mouth passes for the eyes."""
    matrix = cv2.getRotationMatrix2D((225, 120), 225, 1)
    matrix[:, 2] += [31, 136]
    turned = cv2.warpAffine(portrait, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    (face,) = detect(turned)
    assert_landmarks(face, LANDMARKS @ matrix[:, :2].T + matrix[:, 2])
    assert face.angle == pytest.approx(135, abs=6)


@pytest.mark.parametrize("scale", [0.35, 2.6])
def test_small_and_large_faces(detect, portrait, scale):
    (face,) = detect(cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    assert_landmarks(face, (LANDMARKS + 0.5) * scale - 0.5, scale)


def test_a_group_the_best_first(detect, portrait):
    dim = (portrait[:, ::-1] * 0.5).astype(np.uint8)
    faces = detect(np.concatenate([portrait, dim], axis=1))
    assert len(faces) == 2
    assert faces[0].score >= faces[1].score
    first, second = sorted(faces, key=lambda face: face.box[0])
    assert_landmarks(first, LANDMARKS)
    # Left and right change places in the mirror.
    assert_landmarks(second, ([1023, 0] + [-1, 1] * LANDMARKS)[[1, 0, 2, 4, 3]])


def test_a_face_cut_by_the_photo(detect, portrait):
    (face,) = detect(np.ascontiguousarray(portrait[75:, 185:270]))
    assert_landmarks(face, LANDMARKS - [185, 75], 1.5)


def test_a_gray_face(detect, portrait):
    gray = cv2.cvtColor(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    (face,) = detect(gray)
    assert_landmarks(face, LANDMARKS)


def test_what_scores_low_upright_is_no_face(detect, portrait):
    [face] = detect(portrait)
    assert face.score > detect.thresholds[3] == 0.95
    strict = MTCNN(thresholds=(0.6, 0.7, 0.85, face.score))
    assert strict(portrait) == []


def test_no_face(detect):
    assert detect(skimage.data.coffee()[:200, :200]) == []


@pytest.mark.parametrize(
    "shape", [(1, 1), (8, 8), (11, 300), (23, 24), (1, 5000), (5000, 1), (30, 40_000), (40_000, 30), (1, 70_000)]
)
def test_tiny_and_thin_photos_have_none(detect, shape):
    assert detect(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)) == []


def test_photos_of_any_size_run_the_same_programs(detect, portrait, caplog):
    detect(portrait)
    with jax.log_compiles():
        for side in (200, 333, 700):
            assert len(detect(cv2.resize(portrait, (side, side + 7)))) == 1
    assert not [record for record in caplog.records if "Compiling" in record.message]


def test_windows_do_not_depend_on_the_tiles(detect, portrait, monkeypatch):
    expected = detect.propose(portrait)
    monkeypatch.setattr(mtcnn_detector, "TILE", 64)
    monkeypatch.setattr(mtcnn_detector, "TILE_STEP", 54)
    actual = detect.propose(portrait)
    assert len(expected) > 20
    np.testing.assert_allclose(actual.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-5)


def test_windows_lie_in_the_photo(detect, monkeypatch):
    """All windows taken for faces: none reaches into what fills up the tiles."""

    def all_faces(network, tiles, batch):
        return np.ones((len(tiles), 91, 91)), np.zeros((len(tiles), 91, 91, 4))

    monkeypatch.setattr(mtcnn_detector, "_run", all_faces)
    windows = dataclasses.replace(detect, overlaps=(2, 2, 2, 2)).propose(np.zeros((50, 61, 3), np.uint8))
    # Levels of 30 x 25, 22 x 18 and 15 x 13 pixels.
    assert len(windows) == 10 * 7 + 6 * 4 + 2 * 1
    assert windows.boxes.min() >= 0
    assert (windows.boxes[:, 2:] <= [61, 50]).all()


def test_faces_do_not_depend_on_the_batch(detect, portrait, monkeypatch):
    [expected] = detect(portrait)
    monkeypatch.setattr(mtcnn_detector, "CROPS", 3)  # several batches, the last one filled up
    [actual] = detect(portrait)
    # Pixels. Batches of other sizes are summed in other orders: 1.4e-3 with jax 0.12, at each of three networks.
    np.testing.assert_allclose(actual.box, expected.box, atol=3e-3)
    np.testing.assert_allclose(actual.landmarks, expected.landmarks, atol=3e-3)


def test_threads_share_a_detector(detect, portrait):
    photos = [np.roll(portrait, 10 * i, axis=1) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for i, faces in enumerate(pool.map(detect, photos)):
            assert len(faces) == 1
            assert_landmarks(faces[0], LANDMARKS + np.array([10 * i, 0]))


def test_levels_are_bounded(detect):
    photo = np.zeros((1500, 2000, 3), np.uint8)
    bounded = list(dataclasses.replace(detect, max_pixels=1e5).levels(photo))
    assert bounded[0].shape[0] * bounded[0].shape[1] <= 1.01e5
    assert next(detect.levels(photo)).shape == (750, 1000, 3)  # faces of 24 pixels fill a window of 12
    assert min(bounded[-1].shape[:2]) >= 12


def test_large_faces_only(portrait):
    assert MTCNN(min_face_size=200)(portrait) == []


def test_runs_on_the_cpu_where_there_is_one(monkeypatch):
    assert mtcnn_detector.host_device().platform == "cpu"
    devices = jax.local_devices()

    def without_cpu(backend=None):
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return devices[5:]

    monkeypatch.setattr(jax, "local_devices", without_cpu)
    assert mtcnn_detector.host_device() == devices[5]
