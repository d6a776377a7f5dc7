import dataclasses
import json
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from interlcm_jax.errors import WeightsError
from interlcm_jax.files.safetensors import from_array, open_safetensors, write_safetensors

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RNG.standard_normal((5, 3, 3, 2)).astype(np.float32),
    "double": RNG.standard_normal((3, 4)),
    "half": RNG.standard_normal(7).astype(np.float16),
    "brain": RNG.standard_normal((2, 3)).astype(ml_dtypes.bfloat16),
    "scalar": np.array(3, np.int64),
    "short": np.arange(4, dtype=np.int32),
    "bytes": np.arange(5, dtype=np.uint8),
    "flags": np.array([True, False, True]),
    "empty": np.zeros((0, 4), np.float32),
}


def write(path, arrays=ARRAYS, **options):
    write_safetensors(path, {name: from_array(array, path) for name, array in arrays.items()}, **options)
    return path


def assert_same(read, expected):
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert (read[name].shape, read[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(read[name].read() if hasattr(read[name], "read") else read[name], array)


def test_round_trip(tmp_path):
    assert_same(open_safetensors(write(tmp_path / "a.safetensors")), ARRAYS)


def test_the_safetensors_library_reads_what_is_written(tmp_path):
    assert_same(load_file(write(tmp_path / "a.safetensors")), ARRAYS)


def test_what_the_safetensors_library_writes_is_read(tmp_path):
    save_file(ARRAYS, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert_same(open_safetensors(tmp_path / "a.safetensors"), ARRAYS)


def test_permuted_views_are_written_in_their_own_order(tmp_path):
    array = ARRAYS["conv.weight"]
    tensors = {"a": from_array(array, tmp_path).transposed((3, 2, 0, 1)), "b": from_array(array.T, tmp_path)}
    write_safetensors(tmp_path / "a.safetensors", tensors)
    assert_same(load_file(tmp_path / "a.safetensors"), {"a": array.transpose(3, 2, 0, 1), "b": array.T})


def test_metadata_and_alignment(tmp_path):
    content = write(tmp_path / "a.safetensors", metadata={"format": "pt"}).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert size % 8 == 0
    for name, entry in header.items():
        assert entry["data_offsets"][0] % ARRAYS[name].itemsize == 0


@pytest.mark.parametrize("index", [..., np.s_[1:4], np.s_[:, 2:, :1], np.s_[2:2], np.s_[::2, ..., 1:]])
def test_slices(tmp_path, index):
    tensor = open_safetensors(write(tmp_path / "a.safetensors"))["conv.weight"]
    np.testing.assert_array_equal(tensor.read(index), ARRAYS["conv.weight"][index])
    permuted = tensor.transposed((1, 2, 3, 0))
    assert permuted.shape == (3, 3, 2, 5)
    np.testing.assert_array_equal(permuted.read(index), ARRAYS["conv.weight"].transpose(1, 2, 3, 0)[index])


def test_reads_are_arrays_of_their_own(tmp_path):
    tensor = open_safetensors(write(tmp_path / "a.safetensors"))["short"]
    tensor.read()[:] = 9
    np.testing.assert_array_equal(tensor.read(), ARRAYS["short"])


def test_no_tensors_at_all(tmp_path):
    assert open_safetensors(write(tmp_path / "a.safetensors", {})) == {}


def test_truncated_files_are_refused(tmp_path):
    content = write(tmp_path / "whole.safetensors").read_bytes()
    for part in (0, 4, 8, 100, len(content) - 1):
        (tmp_path / "part.safetensors").write_bytes(content[:part])
        with pytest.raises(WeightsError, match="not a whole safetensors file"):
            open_safetensors(tmp_path / "part.safetensors")


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"<html>", b"PK\3\4"]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        open_safetensors(tmp_path / "a.safetensors")


def raw_file(path, header, data):
    text = header.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_duplicate_names_are_refused(tmp_path):
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    path = raw_file(tmp_path / "a.safetensors", f'{{"a":{entry},"a":{entry}}}', bytes(4))
    with pytest.raises(WeightsError, match="1 duplicate keys: a"):
        open_safetensors(path)


def test_unknown_dtypes_are_refused_by_name(tmp_path):
    header = '{"odd":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    with pytest.raises(WeightsError, match=r"odd \(F8_E4M3\)"):
        open_safetensors(raw_file(tmp_path / "a.safetensors", header, bytes(4)))


def test_a_permuted_tensor_reads_only_the_slices_asked_for(tmp_path):
    asked = []
    tensor = open_safetensors(write(tmp_path / "a.safetensors"))["conv.weight"]
    watched = dataclasses.replace(tensor, load=lambda index: asked.append(index) or tensor.read(index))
    part = watched.transposed((2, 3, 1, 0)).read(np.s_[0:1, 1:3, :, 2:4])
    np.testing.assert_array_equal(part, ARRAYS["conv.weight"].transpose(2, 3, 1, 0)[0:1, 1:3, :, 2:4])
    assert asked == [np.s_[2:4, :, 0:1, 1:3]]


def test_another_dtype_is_made_when_it_is_read():
    tensor = from_array(np.array([1.0, 70000.0, np.inf], np.float32), Path("a"))
    half = tensor.astype(np.dtype("float16"))
    assert half.dtype == "float16"
    np.testing.assert_array_equal(half.read((slice(0, 1),)), np.array([1], np.float16))
    np.testing.assert_array_equal(half.read((slice(2, 3),)), np.array([np.inf], np.float16))
    with pytest.raises(WeightsError, match="too large for float16: 7e"):
        half.read((slice(0, 2),))


def test_very_many_names(tmp_path):
    # Looking at every name for every name would take half a minute.
    entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    header = ",".join(f'"name{i}":{entry}' for i in [*range(50_000), 7])
    before = time.process_time()
    with pytest.raises(WeightsError, match="1 duplicate keys: name7"):
        open_safetensors(raw_file(tmp_path / "a.safetensors", f"{{{header}}}", b""))
    assert time.process_time() - before < 5
