"""Scores don't depend on how images are batched, and nothing that can't be scored is passed over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation import folders, per_image
from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.compare import Subject, evaluate
from interlcm_jax.evaluation.metric import Metric
from interlcm_jax.evaluation.pairs import find, match
from interlcm_jax.evaluation.weights import Library
from interlcm_jax.models.lpips import lpips, random_params
from tests.evaluation.pictures import picture, save, spoilt, write_set

THREE = [METRICS[name] for name in ("psnr", "ssim", "lpips")]


class Features(nnx.Module):
    """A network whose features' distance is a metric, as LPIPS is one, in small."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(3, 24, (5, 5), strides=2, rngs=rngs)
        self.second = nnx.Conv(24, 48, (3, 3), strides=2, rngs=rngs)

    def __call__(self, images):
        return nnx.relu(self.second(nnx.relu(self.first(images.astype(jnp.float32) / 127.5 - 1))))


@jax.jit
def distance(network, restored, hq):
    return ((network(restored) - network(hq)) ** 2).mean(axis=(1, 2, 3))


def network() -> Metric:
    prepared = per_image.Prepared(Features(nnx.Rngs(0)), distance)
    measure = per_image.Measure(per_image.PAIR, lambda _: prepared, least=16)
    return Metric("network", "Network", "lower", "", "", (measure,), lambda rows: rows)


def scored(folder, metrics, library=None, **options):
    """The restored images of a set, scored."""
    files, hq = find(folder / "restored")[0], find(folder / "hq")[0]
    return evaluate([Subject("restored", "method", files)], hq, metrics, library or Library(), **options)


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


def test_the_score_is_the_mean_of_each_images_own(tmp_path):
    write_set(tmp_path, 5)
    score = scored(tmp_path, THREE[:1]).rows[0].scores["psnr"]
    read = {
        kind: [np.asarray(Image.open(f)) for f in sorted((tmp_path / kind).iterdir())] for kind in ("restored", "hq")
    }
    wanted = [peak_signal_noise_ratio(hq, restored) for restored, hq in zip(*read.values(), strict=True)]
    assert list(score.images.values()) == pytest.approx(wanted, abs=1e-6)
    assert score.value == pytest.approx(np.mean(wanted), abs=1e-6)
    assert min(wanted) < score.interval[0] < score.value < score.interval[1] < max(wanted)


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


def test_methods_are_compared_over_the_images_that_all_have(tmp_path):
    write_set(tmp_path, 5)
    hq = find(tmp_path / "hq")[0]
    restored = find(tmp_path / "restored")[0]
    first = {name: file for name, file in restored.items() if name != "004"}
    second = {name: file for name, file in restored.items() if name != "001"}
    (tmp_path / "broken.png").write_bytes(b"broken")
    second["003"] = tmp_path / "broken.png"
    lq = find(tmp_path / "lq")[0]
    lq.pop("000")
    subjects = [
        Subject("LQ", "lq", lq),
        Subject("one", "method", first),
        Subject("two", "method", second),
        Subject("HQ", "hq", hq),
    ]
    scores = evaluate(subjects, hq, THREE[:1], Library())
    assert [row.subject.name for row in scores.rows] == ["LQ", "one", "two", "HQ"]
    assert [row.names for row in scores.rows] == [["002"], *[["000", "002"]] * 3]
    assert scores.rows[0].problems == ["LQ: no image 000"]
    assert scores.rows[3].scores["psnr"].why == "is the reference"
    one, two = (row.scores["psnr"].images for row in scores.methods)
    assert one == two


def test_without_originals_only_metrics_that_need_none_are_scored(tmp_path):
    write_set(tmp_path, 3)
    brightness = Metric(
        "brightness",
        "Brightness",
        "higher",
        "the mean level",
        "this test",
        (per_image.Measure(("restored",), per_image.plain(lambda x: x.mean(axis=(1, 2, 3)))),),
        lambda rows: rows,
    )
    spread = Metric(
        "spread", "Spread", "lower", "", "", brightness.measures, of_set=lambda rows: float(np.ptp(rows)), digits=1
    )
    scores = evaluate(
        [Subject("restored", "method", find(tmp_path / "restored")[0])],
        None,
        [*THREE[:1], brightness, spread],
        Library(),
    )
    row = scores.rows[0]
    assert row.scores["psnr"].value is None
    assert row.scores["psnr"].why == "needs a reference"
    values = list(row.scores["brightness"].images.values())
    assert row.scores["brightness"].value == pytest.approx(np.mean(values))
    assert row.scores["spread"].value == pytest.approx(max(values) - min(values))
    assert row.scores["spread"].interval is None
    assert scores.reference_digest is None


def test_lpips_is_the_networks_own(tmp_path, monkeypatch):
    write_set(tmp_path, 3, size=16)
    params = random_params(0)
    monkeypatch.setattr(folders, "replicated_sharding", lambda: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    monkeypatch.setattr(Library, "_load", lambda library, name: params)
    scores = scored(tmp_path, [METRICS["lpips"], METRICS["lpips-bgr"]], batch_size=3).rows[0].scores
    read = {
        kind: [np.asarray(Image.open(f)) for f in sorted((tmp_path / kind).iterdir())] for kind in ("restored", "hq")
    }
    images = [np.stack(own).astype(np.float32) / 127.5 - 1 for own in read.values()]
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


def test_the_references_hash_is_that_of_names_and_pixels(tmp_path):
    write_set(tmp_path, 3)
    first = scored(tmp_path, THREE[:1]).reference_digest
    Image.open(tmp_path / "hq" / "001.png").save(tmp_path / "hq" / "001.bmp")
    (tmp_path / "hq" / "001.png").unlink()
    assert scored(tmp_path, THREE[:1]).reference_digest == first
    pixels = np.array(Image.open(tmp_path / "hq" / "002.png"))
    pixels[5, 5, 1] ^= 1
    save(tmp_path / "hq" / "002.png", pixels)
    assert scored(tmp_path, THREE[:1]).reference_digest != first


def test_no_weights_no_number(tmp_path):
    write_set(tmp_path, 2)
    scores = scored(tmp_path, THREE)
    assert scores.rows[0].scores["lpips"].value is None
    assert scores.rows[0].scores["lpips"].why == "no weights"
    assert scores.rows[0].scores["ssim"].value is not None
    assert "LPIPS: no weights (no lpips.safetensors" in scores.notes[0]


def test_weights_that_are_named_must_be_there(tmp_path):
    write_set(tmp_path, 2)
    with pytest.raises(InterLCMError, match="no such file or folder"):
        scored(tmp_path, THREE, Library([f"lpips={tmp_path / 'none.safetensors'}"]))
    (tmp_path / "lpips.safetensors").write_bytes(b"broken")
    with pytest.raises(InterLCMError, match="not a whole safetensors file"):
        scored(tmp_path, THREE, Library([str(tmp_path)]))
    with pytest.raises(InterLCMError, match="NAME among lpips"):
        Library(["vgg=here"])


def test_files_are_matched_by_name(tmp_path):
    save(tmp_path / "a" / "in" / "x_00.png", picture(0))
    save(tmp_path / "a" / "y.jpg", picture(1))
    save(tmp_path / "b" / "in" / "x.bmp", picture(0))
    restored, problems = find(tmp_path / "a", "_00")
    assert list(restored) == ["in/x"]
    assert "y.jpg: the name doesn't end in _00" in problems[0]
    pairs, _ = match(restored, find(tmp_path / "b")[0])
    assert [pair.name for pair in pairs] == ["in/x"]
    with pytest.raises(InterLCMError, match="no image has a reference of the same name"):
        match(find(tmp_path / "a")[0], {"other": tmp_path / "other.png"})
    save(tmp_path / "a" / "y.png", picture(1))
    with pytest.raises(InterLCMError, match=r"y\.png: the same name as y\.jpg"):
        find(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "empty", "no images"), (tmp_path / "none", "no such folder")):
        with pytest.raises(InterLCMError, match=words):
            find(folder)
