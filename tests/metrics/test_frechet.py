import dataclasses

import mpmath
import numpy as np
import pytest
from scipy.linalg import sqrtm

from interlcm_jax.errors import InterLCMError
from interlcm_jax.metrics.frechet import Statistics, frechet_distance


def features(count, width, seed):
    """Rectified, correlated, of a spectrum over five decades, like Inception's."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width)) * np.exp(-6 * np.arange(width) / width)
    return np.maximum(0.3 * rng.standard_normal((count, width)) @ mixing.T + 0.3, 0).astype(np.float32)


def with_root(first, second, root_trace):
    gap = first.mean - second.mean
    return gap @ gap + np.trace(first.covariance) + np.trace(second.covariance) - 2 * root_trace


def by_scipy(first, second):
    """pytorch-fid's formula."""
    return with_root(first, second, np.trace(sqrtm(first.covariance @ second.covariance)).real)


def by_mpmath(x, y):
    """From the definition, with 60 digits: the covariances and the product's eigenvalues."""
    with mpmath.workdps(60):

        def moments(z):
            z = mpmath.matrix(z.tolist())
            mean = [mpmath.fsum(z[:, j]) / z.rows for j in range(z.cols)]
            centered = mpmath.matrix(z.rows, z.cols)
            for i in range(z.rows):
                for j in range(z.cols):
                    centered[i, j] = z[i, j] - mean[j]
            return mpmath.matrix(mean), centered.T * centered / (z.rows - 1)

        (mean_x, cov_x), (mean_y, cov_y) = moments(x), moments(y)
        eigenvalues = mpmath.eig(cov_x * cov_y, left=False, right=False)
        root = mpmath.fsum(mpmath.sqrt(abs(mpmath.re(value))) for value in eigenvalues)
        gap = mean_x - mean_y
        traces = mpmath.fsum(cov_x[i, i] + cov_y[i, i] for i in range(cov_x.rows))
        return float((gap.T * gap)[0] + traces - 2 * root)


def test_distance_is_scipys():
    first, second = Statistics.of(features(300, 64, 1)), Statistics.of(features(500, 64, 2))
    assert frechet_distance(first, second) == pytest.approx(by_scipy(first, second), rel=1e-10)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(6, 8), (8, 40), (2, 2), (40, 40)])
def test_distance_is_the_definitions(n, m):
    """Computed with 60 digits; fewer samples than the 12 dimensions among them."""
    x, y = features(n, 12, 1), features(m, 12, 2)
    assert frechet_distance(Statistics.of(x), Statistics.of(y)) == pytest.approx(by_mpmath(x, y), rel=1e-11)


@pytest.mark.parametrize(("n", "m"), [(50, 60), (50, 400)])
def test_distance_of_few_samples(n, m):
    """Fewer than dimensions: the plain formula loses digits then, and its regularization another share."""
    x = features(n, 128, 1)
    first, second = Statistics.of(x), Statistics.of(features(m, 128, 2))
    distance = frechet_distance(first, second)
    if m > 128:
        # The second set fills all dimensions, so in an orthonormal basis of the first's the product has full rank.
        basis = np.linalg.qr((x - x.mean(0, dtype=np.float64)).T)[0][:, : n - 1]
        within = (basis.T @ s.covariance @ basis for s in (first, second))
        expected = with_root(first, second, np.trace(sqrtm(next(within) @ next(within))).real)
        assert distance == pytest.approx(expected, rel=1e-10)
    assert distance == pytest.approx(by_scipy(first, second), rel=1e-6)
    ridge = 1e-6 * np.eye(128)
    lifted = [dataclasses.replace(s, covariance=s.covariance + ridge) for s in (first, second)]
    assert frechet_distance(*lifted) == pytest.approx(by_scipy(*lifted), rel=1e-8)
    regularized = by_scipy(*lifted) - 2 * np.trace(ridge)
    assert 1e-5 < (distance - regularized) / distance < 1e-2


def test_distance_to_itself_is_zero():
    few = Statistics.of(features(20, 64, 1))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(few, dataclasses.replace(few, mean=few.mean + 0.5)) == pytest.approx(64 * 0.25)


def test_statistics_are_numpys():
    x = features(50, 8, 1)
    statistics = Statistics.of(x)
    assert statistics.count == 50
    np.testing.assert_allclose(statistics.mean, x.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10)


@pytest.mark.parametrize("sizes", [(1, 49), (7, 1, 42), (10,) * 5, (1,) * 50])
@pytest.mark.parametrize("offset", [0, 1e4])
def test_batches_merge_to_the_whole(sizes, offset):
    """Also far from zero, where sums of squares would lose all digits."""
    x = features(50, 8, 1).astype(np.float64) + offset
    merged = None
    for batch in np.split(x, np.cumsum(sizes)[:-1]):
        part = Statistics.of(batch)
        merged = part if merged is None else merged.merged(part)
    assert merged.count == 50
    np.testing.assert_allclose(merged.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.cov(x, rowvar=False), rtol=1e-8, atol=1e-10)


def test_file(tmp_path):
    statistics = Statistics.of(features(50, 8, 1))
    statistics.save(tmp_path / "set.npz")
    loaded = Statistics.load(tmp_path / "set.npz")
    assert loaded.count == 50
    assert loaded.fingerprint == statistics.fingerprint
    np.testing.assert_array_equal(loaded.mean, statistics.mean)
    np.testing.assert_array_equal(loaded.covariance, statistics.covariance)
    with np.load(tmp_path / "set.npz") as file:  # as pytorch-fid reads it
        np.testing.assert_array_equal(file["mu"][:], statistics.mean)
        np.testing.assert_array_equal(file["sigma"][:], statistics.covariance)
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


def test_file_of_pytorch_fid(tmp_path):
    statistics = Statistics.of(features(50, 8, 1))
    np.savez(tmp_path / "theirs.npz", mu=statistics.mean, sigma=statistics.covariance)
    loaded = Statistics.load(tmp_path / "theirs.npz")
    assert loaded.count is None
    assert frechet_distance(loaded, statistics) == pytest.approx(0, abs=1e-10)
    loaded.save(tmp_path / "again.npz")
    assert Statistics.load(tmp_path / "again.npz").count is None
    with pytest.raises(InterLCMError, match="without their numbers of samples"):
        loaded.merged(statistics)


def test_fingerprint_tells_statistics_apart():
    statistics = Statistics.of(features(50, 8, 1))
    others = [
        dataclasses.replace(statistics, count=51),
        dataclasses.replace(statistics, count=None),
        dataclasses.replace(statistics, mean=np.nextafter(statistics.mean, 1)),
        dataclasses.replace(statistics, covariance=np.nextafter(statistics.covariance, 1)),
    ]
    assert len({s.fingerprint for s in (statistics, *others)}) == 5
    assert len(statistics.fingerprint) == 64


def write(path, **arrays):
    with open(path, "wb") as file:
        np.savez(file, **arrays)


GOOD = {"mu": np.zeros(3), "sigma": np.eye(3)}
LOPSIDED = np.array([[1, 0.1, 0], [0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3)}, "sigma missing"),
        ({**GOOD, "mu": np.zeros(4)}, r"a mean of \(4,\) and a covariance of \(3, 3\)"),
        ({**GOOD, "mu": np.array([0, np.nan, 0])}, "must be finite floats"),
        ({**GOOD, "mu": np.zeros(3, int)}, "must be finite floats"),
        ({**GOOD, "sigma": LOPSIDED}, "isn't symmetric"),
        ({**GOOD, "fingerprint": np.array("0" * 64)}, "damaged"),
    ],
)
def test_bad_files(tmp_path, arrays, message):
    write(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InterLCMError, match=rf"bad\.npz: .*{message}"):
        Statistics.load(tmp_path / "bad.npz")


def test_no_files(tmp_path):
    with pytest.raises(InterLCMError, match=r"none\.npz: no such file.*inception_FFHQ_512-f7b384ab\.pth"):
        Statistics.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(InterLCMError, match=r"text\.npz: not a whole \.npz file"):
        Statistics.load(tmp_path / "text.npz")
    write(tmp_path / "cut.npz", **GOOD)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:300])
    with pytest.raises(InterLCMError, match=r"cut\.npz: not a whole \.npz file"):
        Statistics.load(tmp_path / "cut.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(InterLCMError, match=r"array\.npy: not a whole \.npz file"):
        Statistics.load(tmp_path / "array.npy")


def test_features_that_cannot_be():
    with pytest.raises(InterLCMError, match=r"\(N, D\), N 1 or more, but are \(0, 4\)"):
        Statistics.of(np.zeros((0, 4)))
    with pytest.raises(InterLCMError, match="1 of 2 features aren't finite"):
        Statistics.of(np.array([[0, 1], [np.nan, np.inf]]))
    one, two = Statistics.of(np.zeros((1, 4))), Statistics.of(np.zeros((2, 4)))
    with pytest.raises(InterLCMError, match="two samples or more"):
        frechet_distance(one, two)
    with pytest.raises(InterLCMError, match="of 4 and of 5 numbers"):
        frechet_distance(two, Statistics.of(np.zeros((2, 5))))
