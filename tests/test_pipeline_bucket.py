"""A model folder in a bucket, and images restored from bucket to bucket."""

import math

import jax
import numpy as np
import pytest
from safetensors.numpy import load

from interlcm_jax import InterLCM, InterLCMError, RestoreOptions, restore_files
from interlcm_jax.default_model import SMALL
from interlcm_jax.files.paths import to_path
from interlcm_jax.files.safetensors import open_safetensors
from interlcm_jax.model_folder import load_network, read_config
from interlcm_jax.models.visual_encoder import VisualEncoder
from interlcm_jax.models.weights import abstract, flat_weights
from interlcm_jax.photos.plan import plan, unfinished
from interlcm_jax.training.config import MeshConfig
from interlcm_jax.training.sharding import make_mesh, sharding_rule
from tests.cli.aligned_faces import face as save_face
from tests.photos.darkening import Darkening

ALIGNED = RestoreOptions(aligned=True, gray="color")


@pytest.fixture
def model(bucket):
    """The bundled model in the bucket."""
    for file in (SMALL / "config.json", *SMALL.glob("*.safetensors")):
        bucket.put(f"model/{file.name}", file.read_bytes())
    return bucket


def test_a_network_is_read_with_its_bytes_once(model):
    folder = to_path("gs://bucket/model")
    config = read_config(folder).visual_encoder
    network = abstract(lambda rngs: VisualEncoder(config, rngs=rngs))
    load_network(folder, "visual_encoder", network, sharding_rule(make_mesh(MeshConfig(fsdp=8))))
    stored = model.objects["model/visual_encoder.safetensors"]
    assert model.read["model/visual_encoder.safetensors"] == len(stored)
    for path, array in load(stored).items():
        np.testing.assert_array_equal(flat_weights(network)[path].get_value(), array)
    model.delete("model/visual_encoder.safetensors")
    with pytest.raises(InterLCMError, match=r"^gs://bucket/model/visual_encoder.safetensors: no such file"):
        load_network(folder, "visual_encoder", network)
    with pytest.raises(InterLCMError, match=r"^gs://bucket/other: no such file or folder$"):
        InterLCM.from_pretrained("gs://bucket/other")


@pytest.mark.long
def test_a_model_is_read_with_its_bytes_once_and_written(model):
    mesh = make_mesh(MeshConfig(fsdp=8))
    loaded = InterLCM.from_pretrained("gs://bucket/model", sharding=sharding_rule(mesh))
    whole = sum(len(model.objects[name]) for name in model.names("model/"))
    assert sum(model.read.values()) <= 1.05 * whole
    assert any("fsdp" in weight.get_value().sharding.spec for weight in flat_weights(loaded.networks).values())
    loaded.save_pretrained("gs://bucket/again", "float16")
    assert model.written[-1] == "again/config.json"
    for name in model.names("model/"):
        if name.endswith(".safetensors"):
            ours, theirs = (load(model.objects[name.replace("model/", to)]) for to in ("again/", "model/"))
            assert ours.keys() == theirs.keys()
            assert all((ours[key] == theirs[key]).all() for key in ours)


def test_a_device_reads_its_rows_alone(model):
    rule = sharding_rule(make_mesh(MeshConfig(fsdp=8)))
    tensors = open_safetensors(to_path("gs://bucket/model/unet.safetensors"))
    name, tensor = next((n, t) for n, t in tensors.items() if rule(n, t.shape).spec[:1] == ("fsdp",))
    index = rule(name, tensor.shape).devices_indices_map(tensor.shape)[jax.devices()[3]]
    model.read.clear()
    part = tensor.read(index)
    whole = math.prod(tensor.shape) * tensor.dtype.itemsize
    assert model.read["model/unet.safetensors"] == whole // 8
    np.testing.assert_array_equal(part, tensor.read()[index])


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_images_are_restored_from_bucket_to_bucket(bucket, tmp_path, scheme):
    for i, name in enumerate(["a.png", "sub/b.WEBP", "sub/c.jpg"]):
        bucket.put(f"in/{name}", save_face(tmp_path / name, i).read_bytes())
    bucket.put("in/notes.txt", b"")
    bucket.put("in/bad.png", b"no image")
    inputs, out = f"{scheme}://bucket/in", f"{scheme}://bucket/out"
    outcomes = restore_files(Darkening(), inputs, out, ALIGNED, workers=2)
    # What was written to try the folder is taken away as far as the bucket lets us.
    written = [name for name in bucket.names("out/") if not name.endswith(".interlcm-writes")]
    assert written == ["out/a.png", "out/sub/b.png", "out/sub/c.png"]
    assert [outcome.error for outcome in outcomes if outcome.error] == [
        f"{inputs}/bad.png: not an image (of no format that is read: "
        "BMP, GIF, JPEG, PNG, PPM, WEBP, TIFF, AVIF, JPEG2000, HEIF)"
    ]
    bucket.delete("out/sub/b.png")
    bucket.put("out/a.png", b"")
    left = unfinished(plan([inputs], outcomes[0].job.target.parent))
    assert sorted(job.source.name for job in left) == ["a.png", "b.WEBP", "bad.png"]
    outcomes = restore_files(Darkening(), f"{inputs}/*.png", out, ALIGNED, skip_existing=True)
    assert [outcome.job.source.name for outcome in outcomes] == ["a.png", "bad.png"]
    bucket.forbidden = True
    with pytest.raises(InterLCMError, match=r"bucket.*no permission"):
        restore_files(Darkening(), f"{tmp_path}/a.png", out, ALIGNED)
