"""Measures with networks: as their own functions compute them, whatever the batch and the devices."""

import functools

import jax
import numpy as np
import pytest

from interlcm_jax.evaluation import folders
from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.compare import Subject, compare
from interlcm_jax.evaluation.pairs import images_by_name
from interlcm_jax.evaluation.weights import Library
from interlcm_jax.metrics import identity, inception
from interlcm_jax.metrics.arcface import ArcFace, ArcFaceConfig
from interlcm_jax.metrics.fan import FAN, FANConfig
from interlcm_jax.metrics.frechet import Statistics, frechet_distance
from interlcm_jax.metrics.inception import InceptionConfig, InceptionV3
from interlcm_jax.metrics.landmarks import lmd
from interlcm_jax.metrics.musiq import MUSIQScorer
from interlcm_jax.metrics.musiq_network import MUSIQ, MUSIQConfig
from interlcm_jax.metrics.niqe import fit_pristine, niqe
from interlcm_jax.models.weights import abstract, flat_weights
from tests.evaluation.pictures import picture, spoilt, write_set
from tests.models.random_weights import fill_randomly

NAMES = ("fid-ffhq", "fid-hq", "deg", "similarity", "ida", "lmd", "musiq", "niqe")


COUNT, SIZE = 5, 192


@functools.cache
def weights(name: str):
    """Small networks of random weights in place of the published ones."""
    if name == "niqe":
        return fit_pristine([spoilt(picture(i, 480), 10, i) for i in range(6)], sharpness_threshold=0)
    if name == "ffhq":
        features = np.random.default_rng(0).normal(size=(50, weights("inception").config.num_features))
        return Statistics.of(features)
    kind, config = {
        "inception": (InceptionV3, InceptionConfig.miniature()),
        "deg": (ArcFace, ArcFaceConfig.miniature()),
        "ida": (ArcFace, ArcFaceConfig.miniature()),
        "fan": (FAN, FANConfig.miniature()),
        "musiq": (MUSIQ, MUSIQConfig.miniature()),
    }[name]
    network = fill_randomly(abstract(lambda rngs: kind(config, rngs=rngs)))
    for path, weight in flat_weights(network).items():
        if path.endswith(".var"):
            weight.set_value(1 + weight.get_value() ** 2)
        elif kind is ArcFace and path.endswith((".bias", ".mean")):
            # Else all faces are nearly one, and Deg leaves such pairs out.
            weight.set_value(0 * weight.get_value())
    return MUSIQScorer(network) if name == "musiq" else network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("set")
    write_set(path, COUNT, size=SIZE)
    return path


def scores(folder, monkeypatch, batch_size: int, devices: int):
    if devices == 1:
        monkeypatch.setattr(folders, "replicated_sharding", lambda: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    monkeypatch.setattr(Library, "_load", lambda library, name: weights(name))
    files, hq = images_by_name(folder / "lq")[0], images_by_name(folder / "hq")[0]
    metrics = [METRICS[name] for name in NAMES]
    found = compare([Subject("restored", "method", files)], hq, metrics, Library(), batch_size=batch_size)
    return found.rows[0].scores


@pytest.fixture(scope="module")
def alone(folder):
    """One image at a time on one device."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return scores(folder, monkeypatch, 1, 1)


def test_each_is_its_own_functions(alone):
    hq = np.stack([picture(i, SIZE) for i in range(COUNT)])
    restored = np.stack([spoilt(hq[i], 40, i) for i in range(COUNT)])  # what `write_set` has as lq
    sets = [Statistics.of(inception.features(weights("inception"), images)) for images in (restored, hq)]
    assert alone["fid-hq"].value == pytest.approx(frechet_distance(*sets), rel=1e-4)
    assert alone["fid-ffhq"].value == pytest.approx(frechet_distance(sets[0], weights("ffhq")), rel=1e-4)
    degrees = np.asarray(identity.deg(weights("deg"), restored, hq))
    wanted = {
        "deg": degrees,
        "similarity": identity.similarity(weights("deg"), restored, hq),
        "ida": identity.ida(weights("ida"), restored, hq),
        "lmd": lmd(weights("fan"), restored, hq),
        "musiq": weights("musiq")(restored),
        "niqe": niqe(restored, weights("niqe")),
    }
    for name, values in wanted.items():
        found = list(alone[name].images.values())
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.ptp(found) > 0, name
    assert alone["deg"].value == pytest.approx(identity.mean_deg(degrees)[0], rel=1e-4)


@pytest.mark.parametrize(("batch_size", "devices"), [(7, 1), (2, 8)])
def test_batch_size_and_devices_change_no_score(folder, alone, monkeypatch, batch_size, devices):
    found = scores(folder, monkeypatch, batch_size, devices)
    for name in NAMES:
        # The sums within a network depend on the batch in their last digits, and these numbers aren't of unit size.
        assert found[name].value == pytest.approx(alone[name].value, rel=1e-5, abs=1e-6), name
        assert found[name].count == COUNT


def test_one_image_has_no_frechet_distance(tmp_path, monkeypatch):
    write_set(tmp_path, 1, size=SIZE)
    monkeypatch.setattr(Library, "_load", lambda library, name: weights(name))
    files, hq = images_by_name(tmp_path / "lq")[0], images_by_name(tmp_path / "hq")[0]
    metrics = [METRICS[name] for name in ("fid-ffhq", "fid-hq")]
    row = compare([Subject("lq", "method", files)], hq, metrics, Library()).rows[0]
    assert {score.why for score in row.scores.values()} == {"fewer than 2 images"}
    assert all(score.value is None for score in row.scores.values())
