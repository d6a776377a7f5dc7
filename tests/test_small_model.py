"""The model that the package carries: its size and licence, and that it restores the README's photo."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from safetensors import safe_open
from skimage.metrics import structural_similarity

from interlcm_jax import InterLCM
from interlcm_jax.default_model import SMALL, default_model, describe_model
from interlcm_jax.faces.align import align
from interlcm_jax.faces.mtcnn import load_networks
from interlcm_jax.faces.mtcnn_detector import MTCNN
from interlcm_jax.metrics.onet import onet_distance
from interlcm_jax.metrics.sharpness import laplacian_variance
from interlcm_jax.model_folder import NETWORKS, read_config, weights_file

LICENCE = "CC BY-NC-SA 4.0"
PHOTO = Path(__file__).parent.parent / "docs" / "astronaut.jpg"
PART = (slice(0, 340), slice(60, 400))  # of the photograph that PHOTO was made of


def test_it_is_the_default_and_says_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERLCM_MODELS", str(tmp_path))
    assert default_model() == SMALL
    line = describe_model(SMALL, read_config(SMALL))
    assert "256 x 256 px" in line
    assert f"licence: {LICENCE};" in line
    assert "interlcm download" in line


def test_it_is_small_and_in_half_precision():
    assert sum(path.stat().st_size for path in SMALL.iterdir()) <= 40e6
    for name in NETWORKS:
        with safe_open(weights_file(SMALL, name), "numpy") as weights:
            assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118


def test_every_network_says_where_it_is_from_and_its_licence():
    config = read_config(SMALL)
    assert config.weights.keys() == NETWORKS.keys()
    for entry in config.weights.values():
        assert entry["licence"] == LICENCE
        assert "step" in entry["origin"]
    assert LICENCE in (SMALL / "README.md").read_text()


@pytest.fixture(scope="module")
def faces() -> dict[str, np.ndarray]:
    """The photo's face: as it was, as it came, and restored, (1, 256, 256, 3) each."""
    original = np.ascontiguousarray(skimage.data.astronaut()[PART])
    (face,) = MTCNN()(original)
    hq, lq = (align(photo, face.landmarks, 256)[0][None] for photo in (original, np.asarray(Image.open(PHOTO))))
    return {"hq": hq, "lq": lq, "restored": np.asarray(InterLCM.from_pretrained(SMALL).restore(lq, seed=0))}


def test_the_restored_face_is_nearer_the_original_than_what_came(faces):
    def similarity(name: str) -> float:
        return structural_similarity(faces[name][0], faces["hq"][0], channel_axis=-1, gaussian_weights=True)

    onet = load_networks()[2]
    distance = {
        name: float(onet_distance(onet, *(faces[each].astype(np.float32) / 127.5 - 1 for each in (name, "hq")))[0])
        for name in ("lq", "restored")
    }
    assert distance["restored"] < distance["lq"]
    assert similarity("restored") > similarity("lq")


def test_the_restored_face_is_sharper(faces):
    sharpness = {name: float(laplacian_variance(face)[0]) for name, face in faces.items()}
    assert sharpness["restored"] > sharpness["lq"]
