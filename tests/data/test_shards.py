"""A dataset in a bucket: read where it is, or copied first; and what isn't as it was written is named."""

import json
import pickle

import numpy as np
import pytest

from interlcm_jax.cli.main import main
from interlcm_jax.data.loader import DataConfig, batches
from interlcm_jax.data.shards import MANIFEST, local_copy
from interlcm_jax.data.sources import open_source
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import to_path
from tests.data.faces import write_faces

SHARD = "data/faces-train.array_record-00000"


@pytest.fixture
def built(bucket, tmp_path, monkeypatch):
    """The faces that a dataset in the bucket was built of, by `interlcm dataset`."""
    monkeypatch.setenv("INTERLCM_CACHE", str(tmp_path / "cache"))
    files = write_faces(tmp_path / "faces", 6)
    assert main(["dataset", str(tmp_path / "faces"), "-o", "gs://bucket/data", "--size", "64"]) == 0
    return files


def records(source):
    return [source[i]["hq"] for i in range(len(source))]


def test_a_dataset_is_built_into_a_bucket_and_read_there(bucket, built):
    assert bucket.names() == ["data/dataset_info.json", SHARD, "data/features.json", f"data/{MANIFEST}"]
    assert bucket.written[-1] == "data/dataset_info.json"
    assert json.loads(bucket.objects[f"data/{MANIFEST}"])["features.json"]["bytes"] > 0
    there = open_source("gs://bucket/data", 64)
    here = records(open_source(built[0].parent, 64))
    for found in (records(there), records(pickle.loads(pickle.dumps(there)))):
        np.testing.assert_array_equal(found, here)
    example = next(batches(there, DataConfig(image_size=64, prefetch=0), seed=0, batch_size=2))
    own = next(batches(open_source(built[0].parent, 64), DataConfig(image_size=64, prefetch=0), seed=0, batch_size=2))
    np.testing.assert_array_equal(example["lq"], own["lq"])
    assert main(["dataset", str(built[0].parent), "-o", "gs://bucket/data"]) == 2


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_copy_is_made_once(bucket, built, scheme, caplog):
    source = open_source(f"{scheme}://bucket/data", 64, local_cache=1)
    assert "3 files (0.00 GB) are copied to" in caplog.text
    np.testing.assert_array_equal(records(source), records(open_source(built[0].parent, 64)))
    bucket.read.clear()
    open_source(f"{scheme}://bucket/data", 64, local_cache=1)
    assert bucket.read[SHARD] == 0


def test_a_copy_that_would_be_too_large_is_refused(bucket, built):
    with pytest.raises(InterLCMError, match=r"has 0.00 GB, and data.local_cache allows 1e-06\. .*gcsfuse"):
        local_copy(to_path("gs://bucket/data"), 1e-6)
    with pytest.raises(InterLCMError, match=r"read in place from gs:// alone; give --data.local-cache"):
        open_source("s3://bucket/data", 64)


def test_a_shard_that_is_not_what_was_written_is_named(bucket, built, tmp_path):
    whole = bucket.objects[SHARD]
    bucket.put(SHARD, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InterLCMError, match=f"1 files of the dataset.*\n  gs://bucket/{SHARD}: isn't what was written"):
        open_source("gs://bucket/data", 64, local_cache=1)
    bucket.put(SHARD, whole[:-1])
    with pytest.raises(InterLCMError, match=rf"\n  gs://bucket/{SHARD}: \d+ bytes instead of {len(whole)}"):
        open_source("gs://bucket/data", 64)
    bucket.delete(SHARD)
    with pytest.raises(InterLCMError, match=f"\n  gs://bucket/{SHARD}: missing"):
        open_source("gs://bucket/data", 64)
    bucket.put(SHARD, whole)
    assert len(open_source("gs://bucket/data", 64, local_cache=1)) == 6


def test_a_folder_of_faces_in_a_bucket_is_read_too(bucket, built):
    for file in built:
        bucket.put(f"faces/{file.name}", file.read_bytes())
    np.testing.assert_array_equal(
        records(open_source("s3://bucket/faces", 64)), records(open_source(built[0].parent, 64))
    )
    bucket.put("faces/x.png", b"text")
    with pytest.raises(
        InterLCMError, match=r"1 images that can't be trained on:\n  gs://bucket/faces/x.png: can't be read"
    ):
        open_source("gs://bucket/faces", 64)
