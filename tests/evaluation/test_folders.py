"""Measures don't depend on how images are batched, and what can't be measured is named."""

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from interlcm_jax.evaluation import folders, per_image
from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.metric import Metric
from interlcm_jax.evaluation.weights import Library
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.models.lpips import lpips, random_params
from tests.evaluation.pictures import picture, save, spoilt, write_set
from tests.evaluation.scored import pixels_of, scored

THREE = [METRICS[name] for name in ("psnr", "ssim", "lpips")]


class Features(nnx.Module):
    """A network whose features' distance is a metric, as LPIPS is one, in small."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(3, 24, (5, 5), strides=2, rngs=rngs)
        self.second = nnx.Conv(24, 48, (3, 3), strides=2, rngs=rngs)

    def __call__(self, images):
        return nnx.relu(self.second(nnx.relu(self.first(to_float(images)))))


@jax.jit
def distance(network, restored, hq):
    return ((network(restored) - network(hq)) ** 2).mean(axis=(1, 2, 3))


def network() -> Metric:
    prepared = per_image.LoadedMeasure(Features(nnx.Rngs(0)), distance)
    measure = per_image.ImageMeasure(per_image.PAIR, lambda _: prepared, least=16)
    return Metric("network", "Network", "lower", "", "", (measure,), lambda rows: rows)


def test_batch_size_and_devices_change_no_score(tmp_path, monkeypatch):
    write_set(tmp_path, 11, size=24)
    assert jax.local_device_count() == 8
    metrics, found = [*THREE[:2], network()], []
    for batch_size in (1, 7, 32):
        found.append(scored(tmp_path, metrics, batch_size=batch_size))
    monkeypatch.setattr(folders, "replicated_sharding", lambda: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    for batch_size in (1, 7, 32):
        found.append(scored(tmp_path, metrics, batch_size=batch_size))
    rows = [scores.rows[0].scores for scores in found]
    for name in ("psnr", "ssim", "network"):
        values = [row[name].value for row in rows]
        assert values == pytest.approx([values[0]] * 6, rel=0, abs=1e-6)
        assert all(row[name].count == 11 for row in rows)
        images = np.array([list(row[name].images.values()) for row in rows])
        np.testing.assert_allclose(images, images[:1].repeat(6, axis=0), rtol=0, atol=1e-6)
        assert np.ptp(images[0]) > 1e-3
    assert len({scores.reference_digest for scores in found}) == 1


def test_what_cannot_be_scored_is_named_and_costs_itself_only(tmp_path):
    write_set(tmp_path, 8)
    restored, hq = tmp_path / "restored", tmp_path / "hq"
    (restored / "000.png").write_bytes(b"broken")
    save(restored / "001.png", picture(1, 48))
    (restored / "002.png").unlink()
    (hq / "003.png").unlink()
    save(hq / "004.png", picture(4, 48))
    save(restored / "004.png", spoilt(picture(4, 48), 5))
    Image.open(hq / "005.png").convert("L").save(restored / "005.png")
    Image.open(restored / "006.png").convert("RGBA").save(restored / "006.png")
    row = scored(tmp_path, THREE[:2]).rows[0]
    assert row.names == ["004", "005", "006", "007"]
    assert {name: row.scores[name].count for name in row.scores} == {"psnr": 4, "ssim": 4}
    assert set(row.failures) == {"000", "001"}
    assert "000.png: not an image" in row.failures["000"]
    assert "001.png: 48 x 48 pixels, but its reference has 32 x 32" in row.failures["001"]
    assert "003.png: no reference of this name" in row.problems[0]
    assert "002.png: nothing restored of this name" in row.problems[1]
    assert sorted(line.split(": ", 1)[1] for line in row.warnings) == [
        "gray, but its reference is in color; scored as it is",
        "has transparency, which doesn't enter the scores",
    ]


@pytest.mark.parametrize(("most", "at_a_time"), [(32 * 32, 3), (700, 2), (16 * 16, 1)])
def test_large_images_go_fewer_at_a_time(tmp_path, monkeypatch, most, at_a_time):
    write_set(tmp_path, 5)
    monkeypatch.setattr(folders, "replicated_sharding", lambda: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    monkeypatch.setattr(folders, "IMAGE", most)
    shapes = []

    def brightness(images):
        shapes.append(images.shape)
        return images.mean(axis=(1, 2, 3))

    measure = per_image.ImageMeasure(("restored",), per_image.without_weights(brightness))
    metric = Metric("brightness", "", "higher", "", "", (measure,), lambda rows: rows)
    assert scored(tmp_path, [metric], batch_size=3).rows[0].scores["brightness"].count == 5
    assert shapes == [(at_a_time, 32, 32, 3)]


def test_images_too_large_to_score_are_named(tmp_path, monkeypatch):
    write_set(tmp_path, 2)
    save(tmp_path / "hq" / "000.png", picture(0, 48))
    monkeypatch.setattr(folders, "MAX_PIXELS", 40 * 40)
    row = scored(tmp_path, THREE[:1]).rows[0]
    assert row.names == ["001"]
    assert "hq/000.png: can't be read as an image (48 x 48 pixels" in row.failures["000"]


def test_lpips_is_the_networks_own(tmp_path, monkeypatch):
    write_set(tmp_path, 3, size=16)
    params = random_params(0)
    monkeypatch.setattr(folders, "replicated_sharding", lambda: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    monkeypatch.setattr(Library, "_load", lambda library, name: params)
    scores = scored(tmp_path, [METRICS["lpips"], METRICS["lpips-bgr"]], batch_size=3).rows[0].scores
    images = [to_float(pixels_of(tmp_path / kind)) for kind in ("restored", "hq")]
    for name, order in (("lpips", slice(None)), ("lpips-bgr", slice(None, None, -1))):
        wanted = jax.jit(lpips)(params, *(x[..., order] for x in images))
        np.testing.assert_allclose(list(scores[name].images.values()), wanted, rtol=1e-5, atol=1e-9)
    assert scores["lpips"].value != pytest.approx(scores["lpips-bgr"].value, rel=1e-3)


def test_images_of_many_sizes_and_some_too_small(tmp_path):
    for i, size in enumerate((12, 16, 12, 20, 8, 16)):
        save(tmp_path / "hq" / f"{i}.png", picture(i, size))
        save(tmp_path / "restored" / f"{i}.png", spoilt(picture(i, size), 9, i))
    scores = scored(tmp_path, [*THREE[:2], network()], batch_size=1).rows[0].scores
    assert [scores[name].count for name in ("psnr", "ssim", "network")] == [6, 5, 3]
    small = tmp_path / "small"
    for kind in ("hq", "restored"):
        save(small / kind / "a.png", picture(0, 8))
    assert scored(small, THREE[:2]).rows[0].scores["ssim"].why == "no image of 11 pixels a side"
