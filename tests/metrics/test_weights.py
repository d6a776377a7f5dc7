"""Files of metric networks without PyTorch: our own format, and what is said where there is none."""

import jax
import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.files.safetensors import write_safetensors
from interlcm_jax.metrics import arcface, fan, inception
from interlcm_jax.metrics.arcface import ArcFace, ArcFaceConfig
from interlcm_jax.metrics.fan import FANConfig
from interlcm_jax.metrics.inception import InceptionConfig
from interlcm_jax.metrics.weights import DEG, FAN, FFHQ, IDA, INCEPTION, PUBLISHED, save
from interlcm_jax.models.weights import flat_weights, lazy_weights
from tests.models.random_weights import random_network

KINDS = [
    (inception, inception.InceptionV3, InceptionConfig.miniature()),
    (arcface, arcface.ArcFace, ArcFaceConfig.miniature()),
    (fan, fan.FAN, FANConfig.miniature()),
]


@pytest.mark.parametrize(("module", "kind", "config"), KINDS, ids=["inception", "arcface", "fan"])
def test_saved_networks_load(tmp_path, module, kind, config):
    network = random_network(kind, config)
    save(network, tmp_path / "network.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["network.safetensors"]
    device = jax.devices()[1]
    loaded = module.load(
        tmp_path / "network.safetensors", config=config, sharding=jax.sharding.SingleDeviceSharding(device)
    )
    expected, actual = flat_weights(network), flat_weights(loaded)
    assert actual.keys() == expected.keys()
    for path, variable in actual.items():
        assert variable.get_value().devices() == {device}
        np.testing.assert_array_equal(variable.get_value(), expected[path].get_value(), err_msg=path)


def test_a_saved_network_of_another_size_is_refused(tmp_path):
    network = random_network(ArcFace, ArcFaceConfig.miniature())
    weights = lazy_weights(network)
    del weights["bn5.mean"]
    write_safetensors(tmp_path / "other.safetensors", weights)
    with pytest.raises(WeightsError, match=r"other\.safetensors: 1 missing keys: bn5\.mean"):
        arcface.load(tmp_path / "other.safetensors", config=ArcFaceConfig.miniature())


@pytest.mark.parametrize(
    ("load", "published"),
    [
        (inception.load, INCEPTION),
        (arcface.load, DEG),
        (lambda path: arcface.load(path, IDA), IDA),
        (fan.load, FAN),
    ],
)
def test_a_missing_file_is_explained(tmp_path, load, published):
    with pytest.raises(InterLCMError) as error:
        load(tmp_path / "none.pth")
    for words in ("none.pth: no such file", published.metric, published.file, published.source, published.license):
        assert words in str(error.value)
    with pytest.raises(InterLCMError, match=r"not a file\. .* needs"):
        load(tmp_path)


def test_every_file_is_listed_once():
    assert PUBLISHED == (INCEPTION, FFHQ, DEG, IDA, FAN)
    assert len({published.file for published in PUBLISHED}) == len(PUBLISHED)
