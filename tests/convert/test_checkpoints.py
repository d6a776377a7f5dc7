"""Files, folders and shards as diffusers and transformers name them; no PyTorch (see parity/test_checkpoints.py)."""

import json
import time

import numpy as np
import pytest

from interlcm_jax.convert.checkpoints import (
    DIFFUSERS,
    TRANSFORMERS,
    checked,
    needed,
    read_json,
    read_weights,
    weight_file,
)
from interlcm_jax.convert.writers import write_folder
from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.files.atomic import whole_folder
from interlcm_jax.files.safetensors import from_array, write_safetensors


def write(path, **arrays):
    write_safetensors(path, {name: from_array(np.asarray(value, np.float32), path) for name, value in arrays.items()})


def values(tensors):
    return {name: tensor.read().tolist() for name, tensor in tensors.items()}


def shard(folder, shards, weight_map, index="diffusion_pytorch_model.safetensors.index.json"):
    for name, arrays in shards.items():
        write(folder / name, **arrays)
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))


def test_one_file(tmp_path):
    write(tmp_path / "a.safetensors", a=[1, 2])
    assert values(read_weights(tmp_path / "a.safetensors")) == {"a": [1, 2]}
    assert values(read_weights(str(tmp_path / "a.safetensors"))) == {"a": [1, 2]}


def test_full_precision_comes_before_half_and_safetensors_before_pickles():
    order = [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.bin.index.json",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.fp16.bin",
        "diffusion_pytorch_model.bin.index.fp16.json",
    ]
    for i, name in enumerate(order):
        assert weight_file([*reversed(order[i:]), "config.json", "model.safetensors"], DIFFUSERS) == name
        assert weight_file(order, DIFFUSERS, "fp16") == order[4]
    assert weight_file(order[:4], DIFFUSERS, "fp16") is None
    assert weight_file(["model.safetensors"], DIFFUSERS) is None


def test_transformers_has_two_stems():
    assert weight_file(["pytorch_model.bin", "model.safetensors", "tf_model.h5"], TRANSFORMERS) == "model.safetensors"
    assert weight_file(["pytorch_model.bin", "tf_model.h5"], TRANSFORMERS) == "pytorch_model.bin"


@pytest.mark.parametrize("name", ["a.sft", "a.SAFETENSORS"])
def test_other_endings_of_safetensors(tmp_path, name):
    write(tmp_path / name, **{"_orig_mod.a": 1})
    assert values(read_weights(tmp_path / name)) == {"a": 1}


def test_the_variant_asked_for_is_read(tmp_path):
    write(tmp_path / "diffusion_pytorch_model.safetensors", a=1)
    write(tmp_path / "diffusion_pytorch_model.fp16.safetensors", a=2)
    write(tmp_path / "diffusion_pytorch_model.non_ema.safetensors", a=3)
    assert values(read_weights(tmp_path)) == {"a": 1}
    assert values(read_weights(tmp_path, variant="fp16")) == {"a": 2}
    assert values(read_weights(tmp_path, variant="non_ema")) == {"a": 3}


def test_weights_without_moving_average_are_the_last_choice():
    order = [f"diffusion_pytorch_model{variant}.safetensors" for variant in ("", ".fp16", ".bf16", ".non_ema")]
    for i, name in enumerate(order):
        assert weight_file([*reversed(order[i:]), "config.json"], DIFFUSERS) == name


@pytest.mark.parametrize(
    ("index", "variant"),
    [
        ("diffusion_pytorch_model.safetensors.index.json", None),
        ("diffusion_pytorch_model.safetensors.index.fp16.json", "fp16"),
        ("diffusion_pytorch_model.fp16.safetensors.index.json", "fp16"),
        ("diffusion_pytorch_model.safetensors.fp16.index.json", "fp16"),
    ],
)
def test_shards(tmp_path, index, variant):
    shards = {"x-00001-of-00002.safetensors": {"a": [1], "b": [2]}, "x-00002-of-00002.safetensors": {"c": [3]}}
    shard(tmp_path, shards, {key: name for name, arrays in shards.items() for key in arrays}, index)
    expected = {"a": [1], "b": [2], "c": [3]}
    assert values(read_weights(tmp_path, variant=variant)) == expected
    assert values(read_weights(tmp_path)) == expected
    assert values(read_weights(tmp_path / index)) == expected


def test_every_fault_of_the_shards_is_in_one_error(tmp_path):
    shard(
        tmp_path,
        {"1.safetensors": {"a": [1], "b": [1]}, "2.safetensors": {"b": [1], "stray": [1]}},
        {
            "a": "2.safetensors",
            "b": "1.safetensors",
            "gone": "1.safetensors",
            "x": "3.safetensors",
            "y": "4.safetensors",
        },
    )
    (tmp_path / "4.safetensors").write_bytes(b"text")
    with pytest.raises(WeightsError) as error:
        read_weights(tmp_path)
    text = str(error.value)
    assert "1 missing shards: 3.safetensors" in text
    assert "4.safetensors: not a whole safetensors file" in text
    assert "1 keys in two shards: b" in text
    assert "3 keys not where the index has them: a (in 1.safetensors), b (in 2.safetensors), stray (in 2" in text
    assert "1 keys of the index in no shard: gone" in text
    assert len(error.value.problems) == 5


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_an_index_without_a_map(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match="no weight_map"):
        read_weights(tmp_path, TRANSFORMERS)


def test_an_index_cannot_reach_out_of_its_folder(tmp_path):
    write(tmp_path / "outside.safetensors", a=1)
    (tmp_path / "folder").mkdir()
    shard(tmp_path / "folder", {}, {"a": "../outside.safetensors"})
    with pytest.raises(WeightsError, match=r"\.\./outside"):
        read_weights(tmp_path / "folder")


def test_paths_that_hold_no_weights(tmp_path):
    with pytest.raises(WeightsError, match="no such file or folder"):
        read_weights(tmp_path / "absent.safetensors")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"weights come as \.safetensors"):
        read_weights(tmp_path / "model.onnx")
    with pytest.raises(WeightsError, match=r"no diffusion_pytorch_model weights of variant fp16\n.*holds: model\.onnx"):
        read_weights(tmp_path, variant="fp16")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff"])
def test_json_that_is_none(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InterLCMError, match=r"config\.json: "):
        read_json(tmp_path / "config.json")
    with pytest.raises(InterLCMError, match="no such file"):
        read_json(tmp_path / "absent.json")


SD15 = [
    "model_index.json",
    "v1-5-pruned.safetensors",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.bin",
]


def test_no_file_is_downloaded_twice_over():
    select = needed({"unet": DIFFUSERS, "vae": DIFFUSERS}, ["unet/config.json"])
    chosen = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"]
    assert select(SD15) == chosen
    assert needed({"unet": DIFFUSERS}, variant="non_ema")(SD15) == ["unet/diffusion_pytorch_model.non_ema.safetensors"]


@pytest.mark.parametrize(
    ("index", "shards"),
    [
        ("model.safetensors.index.json", ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]),
        ("model.safetensors.index.fp16.json", ["model.fp16-00001-of-00001.safetensors"]),
        ("model.fp16.safetensors.index.json", ["model-00001-of-00001.fp16.safetensors"]),
        ("pytorch_model.bin.index.json", ["pytorch_model-00001-of-00001.bin"]),
    ],
)
def test_shards_are_downloaded_with_their_index(index, shards):
    others = ["model.msgpack", "pytorch_model-00001-of-00002.flax", "other-00001-of-00002.safetensors", "config.json"]
    assert needed({"": TRANSFORMERS})([*others, *shards, index]) == [index, *shards]


def test_a_variant_of_one_network_alone():
    select = needed({"unet": DIFFUSERS, "vae": DIFFUSERS}, variant="non_ema")
    assert select(SD15) == ["unet/diffusion_pytorch_model.non_ema.safetensors", "vae/diffusion_pytorch_model.bin"]
    with pytest.raises(InterLCMError, match=r"unet: no .* of variant fp32; vae: no .* of variant fp32"):
        needed({"unet": DIFFUSERS, "vae": DIFFUSERS}, variant="fp32")(SD15)


def test_a_pipeline_in_the_place_of_a_network():
    with pytest.raises(InterLCMError, match="networks are in its subfolders unet, vae"):
        needed({"": DIFFUSERS}, ["config.json"])(SD15)


def test_many_missing_shards(tmp_path):
    shard(tmp_path, {}, {f"key{i}": f"{i}.safetensors" for i in range(30_000)})
    started = time.monotonic()
    with pytest.raises(WeightsError, match="30000 missing shards"):
        read_weights(tmp_path)
    assert time.monotonic() - started < 3


def test_all_that_a_repository_lacks_is_named():
    with pytest.raises(InterLCMError) as error:
        needed({"unet": TRANSFORMERS, "": DIFFUSERS}, ["unet/config.json", "LICENSE"], "fp32")(SD15)
    assert "1 missing files: LICENSE" in str(error.value)
    assert "unet: no model weights of variant fp32" in str(error.value)
    assert "top folder: no diffusion_pytorch_model weights of variant fp32" in str(error.value)


def test_damaged_weights_leave_no_output(tmp_path):
    arrays = {"fine": [1.0], "hole": [1.0, np.nan], "huge": [-np.inf], "whole": np.int64(3)}
    weights = {name: from_array(np.asarray(array), tmp_path) for name, array in arrays.items()}
    with (
        pytest.raises(WeightsError, match=r"in\.pth: 2 weights with NaN or infinity: hole, huge"),
        whole_folder(tmp_path / "out") as folder,
        checked(weights, "in.pth") as tensors,
    ):
        write_folder(folder / "vae", {}, tensors)
    assert list(tmp_path.iterdir()) == []


def test_sound_weights_pass_unchanged(tmp_path):
    weights = {"a": from_array(np.arange(6.0, dtype=np.float32).reshape(2, 3), tmp_path)}
    with checked(weights, "in.pth") as tensors:
        write_folder(tmp_path / "vae", {"_class_name": "AutoencoderKL"}, {"b": tensors["a"].transposed((1, 0))})
    assert values(read_weights(tmp_path / "vae")) == {"b": [[0, 3], [1, 4], [2, 5]]}
    assert read_json(tmp_path / "vae/config.json") == {"_class_name": "AutoencoderKL"}
