"""Photos enlarged tile by tile: no seam, any size and factor, one program, any device."""

import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.convert.upsampler import Upsampler, write_upsampler
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.user_folders import MODELS_VARIABLE
from interlcm_jax.models.upsampler import RRDBNet, RRDBNetConfig, SRVGGConfig, SRVGGNetCompact
from interlcm_jax.models.weights import lazy_weights
from interlcm_jax.photos.upsample import PhotoUpsampler, load_upsampler
from interlcm_jax.runtime.batching import replicated_sharding
from tests.models.random_weights import random_network

# Looks 5 pixels far: three layers, the first and the last.
COMPACT = SRVGGConfig.miniature()


@functools.cache
def compact() -> SRVGGNetCompact:
    return random_network(SRVGGNetCompact, COMPACT)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def levels(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b).max()


@pytest.mark.parametrize("size", [(37, 50), (16, 16), (17, 5), (1, 1)])
@pytest.mark.parametrize("blend", [0, 3])
def test_tiles_are_what_the_whole_is(size, blend):
    """Where the overlap is what the network sees, and what is blended besides, but for rounding."""
    tiled = PhotoUpsampler(compact(), tile=32, overlap=5 + blend, blend=blend)(photo(*size), 2)
    whole = PhotoUpsampler(compact(), tile=96, overlap=20, blend=0)(photo(*size), 2)
    assert tiled.shape == (2 * size[0], 2 * size[1], 3)
    assert tiled.std() > 20
    assert levels(tiled, whole) <= 1


def test_tiles_of_a_folded_photo():
    """RRDBNet takes two pixels for one: tile and overlap are counted in its own."""
    network = random_network(RRDBNet, RRDBNetConfig(scale=2, channels=4, growth_channels=2, num_blocks=1))
    tiled = PhotoUpsampler(network, tile=64, overlap=24, blend=2)(photo(41, 38), 2)
    whole = PhotoUpsampler(network, tile=96, overlap=32, blend=0)(photo(41, 38), 2)
    assert levels(tiled, whole) <= 1


class Stamped(nnx.Module):
    """Enlarges nothing: every tile comes out in one gray, the first pixel's; counts its programs."""

    traced = 0

    def __init__(self):
        self.config = SRVGGConfig(scale=1)
        self.weight = nnx.Param(jnp.ones(()))

    def __call__(self, image):
        Stamped.traced += 1
        return jnp.broadcast_to(image[:, :1, :1], image.shape) * self.weight[...]


def test_neighbors_fade_into_each_other():
    ramp = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8)[:, None, None], (60, 60, 3))
    for picture in (ramp, ramp.swapaxes(0, 1)):
        plain, blended = (PhotoUpsampler(Stamped(), tile=24, overlap=6, blend=b)(picture, 1) for b in (0, 4))
        steps = [max(np.abs(np.diff(result.astype(int), axis=a)).max() for a in (0, 1)) for result in (plain, blended)]
        # A step of twelve rows of the ramp is spread over eight pixels.
        assert steps[0] >= 48
        assert steps[1] <= 7
        # Amid the tiles nothing is blended.
        assert np.array_equal(plain[6:60:12, 6:60:12], blended[6:60:12, 6:60:12])


def test_one_program_for_all_sizes():
    upsampler, before = PhotoUpsampler(Stamped(), tile=26, overlap=6, blend=2), Stamped.traced
    for size in ((60, 60), (5, 90), (13, 13)):
        upsampler(photo(*size), 2)
    assert Stamped.traced == before + 1


@pytest.mark.parametrize("factor", [1, 1.3, 2, 3, 5.5])
def test_any_factor(factor):
    picture = np.full((30, 41, 3), 90, np.uint8)
    enlarged = PhotoUpsampler(Stamped(), tile=24, overlap=6, blend=2)(picture, factor)
    assert enlarged.shape == (round(30 * factor), round(41 * factor), 3)
    assert levels(enlarged, np.full_like(enlarged, 90)) == 0


def test_all_devices_take_tiles():
    upsampler = PhotoUpsampler(compact(), tile=24, overlap=6, blend=1)
    spread = PhotoUpsampler(jax.device_put(compact(), replicated_sharding()), tile=24, overlap=6, blend=1)
    assert levels(spread(photo(50, 40), 2), upsampler(photo(50, 40), 2)) <= 1


def test_threads_take_turns():
    upsampler = PhotoUpsampler(compact(), tile=24, overlap=6, blend=1)
    pictures = [photo(20, 20 + i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda picture: upsampler(picture, 2), pictures))
    assert all(np.array_equal(a, upsampler(b, 2)) for a, b in zip(together, pictures, strict=True))


def test_what_is_not_finite():
    broken = random_network(SRVGGNetCompact, COMPACT)
    broken.body[0].bias[...] = broken.body[0].bias[...].at[0].set(jnp.nan)
    with pytest.raises(InterLCMError, match="the upsampler gave NaN or infinity; try float32"):
        PhotoUpsampler(broken, tile=24, overlap=6, blend=1)(photo(9, 9), 2)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tile": 24, "overlap": 12}, "overlap is 12, but must be an integer from 0 to 11"),
        ({"tile": 24, "overlap": 4, "blend": 5}, "blend is 5, but must be an integer from 0 to 4"),
        ({"tile": 24, "overlap": 10, "blend": 3}, "blend is 3, but a tile of 24 with an overlap of 10 hasn't room"),
    ],
)
def test_sizes_that_do_not_go_together(sizes, message):
    with pytest.raises(InterLCMError, match=message):
        PhotoUpsampler(compact(), **sizes)


def test_an_upsampler_by_its_name_and_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    folder = tmp_path / "upsamplers" / "mine"
    found = Upsampler("SRVGGNetCompact", COMPACT, lazy_weights(compact()), tmp_path)
    write_upsampler(found, folder, "these tests", "none")
    picture = photo(20, 20)
    expected = PhotoUpsampler(compact())(picture, 2)
    for source in ("mine", folder):
        assert np.array_equal(load_upsampler(source)(picture, 2), expected)
    half = load_upsampler("mine", "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.weights)} == {jnp.dtype(jnp.bfloat16)}
    assert 0 < np.abs(half(picture, 2).astype(int) - expected).mean() < 4


@pytest.mark.parametrize("source", ["other", "../mine", "missing.pth"])
def test_an_upsampler_that_is_not_there(source, tmp_path, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(InterLCMError, match=r"no such upsampler; interlcm download --upsampler x2plus"):
        load_upsampler(source)
