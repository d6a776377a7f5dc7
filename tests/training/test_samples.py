import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.samples import GRAY, SEPARATOR, sample_grid


def test_a_grid_has_a_row_for_each_image_and_three_columns():
    lq, restored, hq = np.random.default_rng(0).integers(0, 256, (3, 2, 5, 7, 3), dtype=np.uint8)
    grid = sample_grid(lq, restored, hq)
    assert grid.dtype == np.uint8
    assert grid.shape == (2 * 5 + SEPARATOR, 3 * 7 + 2 * SEPARATOR, 3)
    for row in range(2):
        for column, images in enumerate((lq, restored, hq)):
            y, x = row * (5 + SEPARATOR), column * (7 + SEPARATOR)
            np.testing.assert_array_equal(grid[y : y + 5, x : x + 7], images[row])
    np.testing.assert_array_equal(grid[5 : 5 + SEPARATOR], GRAY)
    np.testing.assert_array_equal(grid[:, 7 : 7 + SEPARATOR], GRAY)


@pytest.mark.usefixtures("unchecked")
def test_pictures_that_do_not_fit_are_refused():
    x = np.zeros((1, 4, 4, 3), np.uint8)
    for wrong in (x[:, :2], x.astype(np.float32), x[0]):
        with pytest.raises(InterLCMError, match="must all be uint8 of one shape"):
            sample_grid(x, wrong, x)
