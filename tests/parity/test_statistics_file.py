"""BasicSR's statistics of features, which are pickled with NumPy arrays in them."""

import zipfile

import numpy as np
import pytest
import torch

from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.metrics.frechet import Statistics


@pytest.fixture
def statistics():
    x = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    return {"name": "FFHQ", "size": 512, "mean": np.mean(x, 0), "cov": np.cov(x, rowvar=False)}


def check(path, statistics):
    loaded = Statistics.load(path)
    assert loaded.count is None
    assert loaded.mean.dtype == loaded.covariance.dtype == np.float64
    np.testing.assert_array_equal(loaded.mean, statistics["mean"])
    np.testing.assert_array_equal(loaded.covariance, statistics["cov"])


@pytest.mark.parametrize("zipped", [True, False])
def test_arrays(tmp_path, statistics, zipped):
    torch.save(statistics, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    check(tmp_path / "x.pth", statistics)


def test_arrays_of_numpy_1(tmp_path, statistics):
    """As the published file is: it names NumPy's insides by their old place."""
    torch.save(statistics, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            old.writestr(name, content)
    check(tmp_path / "old.pth", statistics)


def test_tensors(tmp_path, statistics):
    torch.save({key: torch.as_tensor(statistics[key]) for key in ("mean", "cov")}, tmp_path / "x.pth")
    check(tmp_path / "x.pth", statistics)


class Harmful:
    def __reduce__(self):
        return print, ("harm",)


def test_code_is_not_run(tmp_path, statistics, capsys):
    torch.save({**statistics, "name": Harmful()}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="would run code"):
        Statistics.load(tmp_path / "x.pth")
    torch.save({**statistics, "name": np.array([Harmful()], object)}, tmp_path / "y.pth")
    with pytest.raises(WeightsError, match="would run code"):
        Statistics.load(tmp_path / "y.pth")
    assert not capsys.readouterr().out


def test_other_files(tmp_path):
    torch.save({"mean": np.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(InterLCMError, match=r"x\.pth: no statistics of features \(cov missing\)"):
        Statistics.load(tmp_path / "x.pth")
    torch.save([1], tmp_path / "y.pth")
    with pytest.raises(WeightsError, match="a list instead of a dict"):
        Statistics.load(tmp_path / "y.pth")
