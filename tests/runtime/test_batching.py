"""Any number of faces in fixed batches, on one device and on eight: the same results, in order, work overlapped."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from interlcm_jax import InterLCM, InterLCMError
from interlcm_jax.restoration import draw_noise
from interlcm_jax.runtime.batching import IN_FLIGHT, in_batches, pad, replicated_mesh, replicated_sharding
from tests.miniature import miniature_model

SIZE = 64
SPREAD = 1e-5  # maximum absolute difference of one device and eight, float32


def copied(sharding) -> InterLCM:
    """The miniature with its weights under the sharding."""
    model = miniature_model()
    copy = InterLCM(model.config, model.networks)
    copy.weights = jax.device_put(copy.weights, sharding)
    return copy


@pytest.fixture(scope="module")
def spread() -> InterLCM:
    """The miniature with its weights on eight devices."""
    return copied(replicated_sharding())


def faces(count: int) -> np.ndarray:
    coarse = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


def scaled(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / np.float32(127.5) - 1


@pytest.mark.parametrize("count", [1, 8, 11])
def test_eight_devices_give_what_one_gives(spread, count):
    lq = scaled(faces(count))
    restored = spread.restore(lq, seed=3)
    assert restored.shape == lq.shape
    alone = np.concatenate([miniature_model().restore(lq[i : i + 1], seed=3) for i in range(count)])
    assert np.abs(np.asarray(restored) - alone).max() <= SPREAD


def test_each_device_does_its_share(spread):
    restored = spread.restore(scaled(faces(16)))
    assert {shard.data.shape[0] for shard in restored.addressable_shards} == {2}
    assert {shard.device for shard in restored.addressable_shards} == set(jax.devices())


def test_noise_of_each_image_goes_where_the_image_goes(spread):
    lq = scaled(faces(3))
    noise = np.concatenate([draw_noise(np.uint32(seed), 3, (8, 8, 4)) for seed in range(3)], axis=1)
    restored = np.asarray(spread.restore(lq, noise))
    for i in range(3):
        alone = miniature_model().restore(lq[i : i + 1], seed=i)
        assert np.abs(restored[i] - np.asarray(alone)[0]).max() <= SPREAD


def test_images_that_lie_on_one_device_are_taken(spread):
    lq = jax.device_put(scaled(faces(2)), jax.devices()[5])
    assert np.abs(np.asarray(spread.restore(lq)) - np.asarray(spread.restore(scaled(faces(2))))).max() == 0


def test_only_whole_copies_on_several_devices_share_the_batch():
    assert replicated_mesh(miniature_model().weights) is None
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    here = jax.device_put(np.ones(8, np.float32), whole)
    assert replicated_mesh({"a": here}) == mesh
    assert replicated_mesh({"a": here, "b": jax.device_put(np.ones(8, np.float32), split)}) is None
    assert replicated_mesh({"a": here, "b": jax.device_put(np.ones(8, np.float32), jax.devices()[0])}) is None


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_any_number_of_faces_comes_back_in_order(batch_size):
    def run(batch):
        assert len(batch) == batch_size
        return 255 - batch, np.ones(batch_size, bool)

    np.testing.assert_array_equal(list(in_batches(iter(faces(5)), batch_size, run)), 255 - faces(5))


def test_faces_in_batches_are_restored_as_together():
    images = faces(5)
    restored = list(miniature_model().restore_all(iter(images), batch_size=3, seed=2))
    assert [image.dtype for image in restored] == [np.uint8] * 5
    # In other places of their batches.
    expected = np.concatenate([miniature_model().restore(images[part], seed=2) for part in (slice(3), slice(2, 5))])
    assert np.abs(np.stack(restored).astype(int) - expected[[0, 1, 2, 4, 5]]).max() <= 1


def test_batches_fill_every_device(spread):
    drawn = []

    def source():
        for face in faces(2 * IN_FLIGHT * 8 + 4):
            drawn.append(face)
            yield face

    restored = spread.restore_all(source(), batch_size=2)
    next(restored)
    assert len(drawn) == IN_FLIGHT * 2 * 8
    assert len(list(restored)) == 2 * IN_FLIGHT * 8 + 3


def test_nothing_in_nothing_out():
    assert list(miniature_model().restore_all([])) == []


def test_the_next_faces_are_drawn_while_batches_run():
    events = []

    def source():
        for i in range(5):
            events.append(f"face {i}")
            yield np.full((2, 2, 3), i, np.uint8)

    def run(batch):
        events.append(f"run {batch[0, 0, 0, 0]}")
        return batch, np.array([True])

    results = in_batches(source(), 1, run)
    assert next(results)[0, 0, 0] == 0
    # The first result is waited for only when a second batch is under way.
    assert events == [f"{what} {i}" for i in range(IN_FLIGHT) for what in ("face", "run")]
    assert [image[0, 0, 0] for image in results] == [1, 2, 3, 4]


def test_a_face_that_is_not_finite_is_told_from_the_others():
    images = faces(3)
    broken = copied(jax.devices()[0])
    weight = broken.weights.vae.decoder.conv_out.bias
    # One channel that is broken is enough.
    weight.set_value(weight.get_value().at[0].set(np.nan))
    assert list(broken.restore_all(images, batch_size=3)) == [None] * 3
    answers = in_batches(images, 3, lambda batch: (batch, np.array([True, False, True])))
    assert [answer is None for answer in answers] == [False, True, False]


def test_padding_repeats_the_last():
    batch = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(pad(batch, 5)[3:], batch[[2, 2]])
    assert pad(batch, 3) is batch


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_bad_batch_size_is_refused_before_anything_runs(size):
    with pytest.raises(InterLCMError, match="batch_size is"):
        miniature_model().restore_all([], batch_size=size)
