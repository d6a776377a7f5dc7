"""Batches: what is in them depends on the seed, the batch number and the batch size alone."""

import itertools

import numpy as np
import pytest

from interlcm_jax.data.degradation import DegradationConfig, degrade, draw
from interlcm_jax.data.loader import DataConfig, batches
from interlcm_jax.data.photometric import PhotometricConfig
from interlcm_jax.data.randomness import rng_for
from interlcm_jax.data.sources import Folder
from interlcm_jax.errors import InterLCMError
from tests.data.faces import write_faces

COUNT = 10


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder, COUNT)
    return Folder.open(folder, 64)


def take(source, count, config=None, *, seed=0, batch_size=4, **options):
    iterator = batches(source, config or DataConfig(image_size=64), seed=seed, batch_size=batch_size, **options)
    taken = list(itertools.islice(iterator, count))
    iterator.close()
    return taken


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys() == {"lq", "hq", "index"}
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture(scope="module")
def unbroken(source):
    return take(source, 8)


def test_shapes(unbroken):
    batch = unbroken[0]
    assert {name: (type(v), v.dtype, v.shape) for name, v in batch.items()} == {
        "lq": (np.ndarray, np.uint8, (4, 64, 64, 3)),
        "hq": (np.ndarray, np.uint8, (4, 64, 64, 3)),
        "index": (np.ndarray, np.int64, (4,)),
    }


def test_every_record_comes_once_an_epoch_in_another_order(unbroken):
    epochs = np.concatenate([batch["index"] for batch in unbroken])[:30].reshape(3, COUNT)
    for epoch in epochs:
        assert sorted(epoch) == list(range(COUNT))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_seeds_differ_in_everything(source, unbroken):
    other = take(source, 8, seed=1)
    assert any((a["index"] != b["index"]).any() for a, b in zip(unbroken, other, strict=True))


def test_images_are_the_records_flipped_and_degraded_by_their_keys(source, unbroken):
    config, flips = DegradationConfig(), []
    for number, batch in enumerate(unbroken):
        for row, record in enumerate(batch["index"].tolist()):
            epoch = (number * 4 + row) // COUNT
            flips.append(rng_for(0, "flip", record, epoch).random() < 0.5)
            hq = source[record]["hq"][:, ::-1] if flips[-1] else source[record]["hq"]
            np.testing.assert_array_equal(batch["hq"][row], hq)
            lq = degrade(np.ascontiguousarray(hq), draw(config, rng_for(0, "degradation", record, epoch)))
            np.testing.assert_array_equal(batch["lq"][row], lq)
    assert 0 < sum(flips) < len(flips)


def test_a_record_is_degraded_anew_each_epoch(source):
    first, second = take(source, 2, DataConfig(image_size=64, flip=0.0), batch_size=COUNT)
    ours, theirs = (batch["lq"][np.argsort(batch["index"])] for batch in (first, second))
    assert (ours != theirs).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flips_are_as_likely_as_asked(source, flip):
    for batch in take(source, 2, DataConfig(image_size=64, flip=flip)):
        for hq, record in zip(batch["hq"], batch["index"].tolist(), strict=True):
            expected = source[record]["hq"]
            np.testing.assert_array_equal(hq, expected[:, ::-1] if flip else expected)


def test_colors_are_exchanged_in_as_many_images_as_asked_and_in_every_order():
    """Of pairs in both images alike."""
    colors = np.broadcast_to(np.array([10, 20, 30], np.uint8), (64, 64, 3))
    pairs = [{"lq": colors, "hq": colors + np.uint8(1)}] * 300
    (plain,) = take(pairs, 1, DataConfig(image_size=64, paired=True), batch_size=300)
    assert (plain["lq"] == colors).all()
    (batch,) = take(pairs, 1, DataConfig(image_size=64, paired=True, channel_permutation=0.5), batch_size=300)
    np.testing.assert_array_equal(batch["hq"], batch["lq"] + 1)
    assert (batch["lq"] == batch["lq"][:, :1, :1]).all()
    orders, counts = np.unique(batch["lq"][:, 0, 0], axis=0, return_counts=True)
    assert len(orders) == 6
    # Half are left alone, and a sixth of the others come out as they were.
    assert abs(counts[0] / 300 - 7 / 12) < 0.1


def test_light_changes_as_many_images_as_asked_before_they_are_degraded():
    faces = [{"hq": np.full((8, 8, 3), 100, np.uint8)}] * 300
    config = DataConfig(
        image_size=8, photometric=PhotometricConfig(probability=0.5, tint=60.0), degradation=DegradationConfig.gray()
    )
    (batch,) = take(faces, 1, config, batch_size=300)
    assert abs((batch["hq"] != 100).any((1, 2, 3)).mean() - 0.5) < 0.1
    assert np.abs(batch["lq"] - (batch["hq"] @ [0.299, 0.587, 0.114])[..., None]).max() < 1


def test_both_images_of_a_pair_are_put_into_the_same_light():
    pairs = [{"lq": np.full((8, 8, 3), 100, np.uint8), "hq": np.full((8, 8, 3), 100, np.uint8)}] * 20
    tones = PhotometricConfig(probability=1.0, tint=60.0)
    (batch,) = take(pairs, 1, DataConfig(image_size=8, paired=True, photometric=tones), batch_size=20)
    np.testing.assert_array_equal(batch["lq"], batch["hq"])
    assert len(np.unique(batch["hq"][:, 0, 0], axis=0)) == 20


@pytest.mark.parametrize("start", [1, 2, 5])
def test_a_later_start_gives_what_an_unbroken_run_does(source, unbroken, start):
    assert_same(take(source, 3, start=start), unbroken[start : start + 3])


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_prefetching_changes_nothing(source, unbroken, prefetch):
    assert_same(take(source, 8, DataConfig(image_size=64, prefetch=prefetch)), unbroken)


def test_processes_take_contiguous_slices(source, unbroken):
    shares = [take(source, 4, start=2, process_index=p, process_count=2) for p in range(2)]
    joined = [{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*shares, strict=True)]
    assert_same(joined, unbroken[2:6])


def test_paired_images_are_flipped_together_and_not_degraded():
    pairs = [{"lq": np.full((64, 64, 3), i, np.uint8), "hq": np.full((64, 64, 3), i, np.uint8)} for i in range(4)]
    for pair in pairs:
        pair["lq"][:, :32] += 100
        pair["hq"][:, :32] += 200
    (batch,) = take(pairs, 1, DataConfig(image_size=64, paired=True))
    for lq, hq, index in zip(batch["lq"], batch["hq"], batch["index"].tolist(), strict=True):
        np.testing.assert_array_equal(hq.astype(int) - lq, 100 * (hq > 100))
        assert hq.min() == index
    assert len({hq[0, 0, 0] >= 200 for hq in batch["hq"]}) == 2


def test_more_images_than_records(source):
    (batch,) = take(source, 1, batch_size=25)
    assert sorted(np.bincount(batch["index"])) == [2] * 5 + [3] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 5, "process_count": 2}, "batch_size is 5, but must be a multiple of the 2 processes"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"start": -1}, "start is -1"),
        ({"seed": 2**32}, "seed is "),
        ({"process_index": 2, "process_count": 2}, "process_index is 2, but must be from 0 to 1"),
    ],
)
def test_errors_name_the_argument(source, options, message):
    with pytest.raises(InterLCMError, match=message):
        batches(source, DataConfig(), **({"seed": 0, "batch_size": 4} | options))


def test_an_empty_source_is_an_error():
    with pytest.raises(InterLCMError, match="empty"):
        batches([], DataConfig(), seed=0, batch_size=4)


@pytest.mark.parametrize(("field", "value"), [("flip", 1.5), ("image_size", 0), ("workers", -1), ("prefetch", -1)])
def test_errors_name_the_field(field, value):
    with pytest.raises(InterLCMError, match=rf"data\.{field} is "):
        DataConfig(**{field: value})


def test_workers_need_to_prefetch():
    with pytest.raises(InterLCMError, match=r"data\.prefetch is 0, but must be at least 1"):
        DataConfig(workers=1, prefetch=0)
