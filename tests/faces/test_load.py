"""The detector of a model folder, by name."""

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.load import load_detector
from interlcm_jax.faces.mtcnn_detector import MTCNN


def test_mtcnn_where_the_folder_holds_no_other(tmp_path):
    assert isinstance(load_detector(tmp_path), MTCNN)
    assert isinstance(load_detector(tmp_path, "mtcnn"), MTCNN)


@pytest.mark.parametrize(
    ("name", "message"),
    [("retinaface", "no RetinaFace in this model folder"), ("haar", "detector is 'haar', but must")],
)
def test_detectors_that_are_not_there(tmp_path, name, message):
    with pytest.raises(InterLCMError, match=message):
        load_detector(tmp_path, name)


def test_retinaface_comes_first(tmp_path, monkeypatch):
    found = object()
    monkeypatch.setattr("interlcm_jax.faces.load.load_retinaface", lambda folder: found)
    assert load_detector(tmp_path) is load_detector(tmp_path, "retinaface") is found
    assert isinstance(load_detector(tmp_path, "mtcnn"), MTCNN)
