"""The variance of the Laplacian against OpenCV's."""

import cv2
import numpy as np
import pytest

from interlcm_jax.metrics.sharpness import laplacian_variance


def by_opencv(image: np.ndarray) -> float:
    luma = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return cv2.Laplacian(luma, cv2.CV_64F)[1:-1, 1:-1].var()


def test_equals_opencvs_for_each_image():
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 23, 3), np.uint8)
    images[1] = cv2.GaussianBlur(images[1], (0, 0), 1.5)
    images[2] = 7
    actual = laplacian_variance(images)
    np.testing.assert_allclose(actual, [by_opencv(image) for image in images], rtol=1e-5)
    assert actual[0] > 100 * actual[1] > actual[2] == pytest.approx(0, abs=1e-6)
