import cv2
import numpy as np
import pytest

from interlcm_jax.faces.detail import detail
from interlcm_jax.model_folder import LEAVE_SHARP


def drawn(sigma: float, size: int = 256) -> np.ndarray:
    """A face of sharp lines and dots, blurred."""
    rng = np.random.default_rng(0)
    picture = np.full((256, 256, 3), 150, np.uint8)
    for x, y in rng.integers(60, 200, (60, 2)):
        radius, color = int(rng.integers(2, 9)), rng.integers(40, 220, 3).tolist()
        cv2.circle(picture, (int(x), int(y)), radius, color, -1, cv2.LINE_AA)
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture


def test_the_more_a_face_is_blurred_the_less_detail_it_has():
    details = [detail(drawn(sigma)) for sigma in (0, 0.6, 1, 1.5, 2, 3, 4)]
    assert details == sorted(details, reverse=True)
    assert details[0] > 2 * details[-1]


def test_the_small_models_bound_lies_between_sharp_and_blurred():
    assert detail(drawn(0.5)) > LEAVE_SHARP > detail(drawn(2.5))


@pytest.mark.parametrize(("times", "sharp"), [(1.5, True), (4, False), (8, False)])
def test_a_small_face_that_was_enlarged_has_little(times, sharp):
    size = round(256 / times)
    small = cv2.resize(drawn(0), (size, size), interpolation=cv2.INTER_AREA)
    face = cv2.resize(small, (256, 256), interpolation=cv2.INTER_LINEAR)
    assert (detail(face, times) > LEAVE_SHARP) == sharp


@pytest.mark.parametrize("deviation", [5, 10, 20])
def test_noise_is_no_detail(deviation):
    blurred = drawn(3)
    noisy = (blurred + np.random.default_rng(1).normal(0, deviation, blurred.shape)).clip(0, 255).astype(np.uint8)
    assert detail(noisy) < LEAVE_SHARP


@pytest.mark.parametrize("change", [lambda x: x // 3, lambda x: 255 - x, lambda x: x // 2 + 100])
def test_light_and_contrast_change_it_little(change):
    face = drawn(1)
    assert detail(change(face)) == pytest.approx(detail(face), rel=0.1)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_even_surface_has_none(level):
    assert detail(np.full((64, 64, 3), level, np.uint8)) == 0
