"""Files that PyTorch, diffusers and transformers really write, read by us, and ours read by them."""

import argparse
import builtins
import collections
import datetime
import fractions
import os
import pathlib
import pickle
import sys
import types
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch

from interlcm_jax.convert.checkpoints import read_weights
from interlcm_jax.errors import InterLCMError, WeightsError


def example_state():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "half": torch.randn(5, generator=generator).half(),
        "brain": torch.randn(2, 3, generator=generator).bfloat16(),
        "permuted": torch.randn(3, 4, generator=generator).T,
        "num_batches_tracked": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }


def as_numpy(tensor):
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def assert_same(read, state):
    assert read.keys() == state.keys()
    for key, tensor in state.items():
        expected = as_numpy(tensor)
        assert (read[key].shape, read[key].dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(read[key].read(), expected)
        if expected.ndim == 2 and len(expected):
            np.testing.assert_array_equal(read[key].read(np.s_[1:, :2]), expected[1:, :2])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["a.bin", "a.pth", "a.pt", "a.PTH", "a.ckpt"])
def test_pickles_of_both_formats(tmp_path, name, zipped):
    torch.save(example_state(), tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(tmp_path / name), example_state())


def test_what_is_read_is_not_tied_to_the_file(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pth")
    tensor = read_weights(tmp_path / "a.pth")["a"]
    tensor.read()[:] = 5
    np.testing.assert_array_equal(tensor.read(), np.ones(3))


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({"params": {"a": 1.0}, "params_ema": {"a": 2.0}}, {"a": 2.0}),
        ({"params": {"a": 1.0}}, {"a": 1.0}),
        ({"state_dict": {"a": 1.0}}, {"a": 1.0}),
        ({"_orig_mod.a": 1.0, "_orig_mod.b": 2.0}, {"a": 1.0, "b": 2.0}),
        ({"_orig_mod.module.a": 1.0, "module._orig_mod.b": 2.0}, {"a": 1.0, "b": 2.0}),
        ({"blocks.0._orig_mod.a": 1.0, "b": 2.0}, {"blocks.0.a": 1.0, "b": 2.0}),
        ({"a": 1.0, "module.b": 2.0}, {"a": 1.0, "module.b": 2.0}),
        ({"params_ema": {"module.a": 1.0, "module.module.b": 2.0}}, {"a": 1.0, "module.b": 2.0}),
        (collections.OrderedDict({"module.a": 1.0}), {"a": 1.0}),
    ],
)
def test_wrapped_state_dicts(tmp_path, saved, expected):
    def tensors(value):
        return (
            torch.tensor(value) if isinstance(value, float) else type(value)((k, tensors(v)) for k, v in value.items())
        )

    torch.save(tensors(saved), tmp_path / "a.pth")
    assert {key: float(tensor.read()) for key, tensor in read_weights(tmp_path / "a.pth").items()} == expected


def test_a_key_with_its_prefix_and_without(tmp_path):
    torch.save({"_orig_mod.a": torch.ones(2), "a": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="1 duplicate keys: a"):
        read_weights(tmp_path / "a.pth")


ASIDE = {
    "number": 3,
    "numpy scalar": np.float64(0.5),
    "numpy text": np.str_("a"),
    "date": datetime.date(2024, 5, 1),
    "time": datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
    "settings": argparse.Namespace(lr=0.1, folder=pathlib.Path("runs") / "a"),
    "folder": pathlib.Path("runs"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("value", ASIDE.values(), ids=ASIDE)
def test_plain_values_beside_the_tensors_are_passed_over(tmp_path, value, zipped):
    beside, outside = {**example_state(), "value": value}, {"params_ema": example_state(), "value": [value]}
    for state in (beside, outside):
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        assert_same(read_weights(tmp_path / "a.pth"), example_state())


def lightning_class(name, base, monkeypatch):
    """A class that pickles as PyTorch Lightning's, for a while."""
    module, short = f"pytorch_lightning.{name}".rsplit(".", 1)
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType(".".join(parts[:count])))
    made = type(short, (base,), {"__module__": module})
    setattr(sys.modules[module], short, made)
    return made


def test_lightnings_checkpoints(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        callback = lightning_class("callbacks.model_checkpoint.ModelCheckpoint", object, patch)
        settings = lightning_class("utilities.parsing.AttributeDict", dict, patch)
        counts = collections.defaultdict(list, {"a": [1]})
        others = {"callbacks": {callback: {"best": 0.5}}, "hyper_parameters": settings(lr=0.1), "counts": counts}
        torch.save({"state_dict": example_state(), "epoch": 3, **others, "last": callback()}, tmp_path / "a.ckpt")
    assert_same(read_weights(tmp_path / "a.ckpt"), example_state())


def test_what_else_stands_beside_the_tensors_is_named(tmp_path):
    torch.save({**example_state(), "ratio": fractions.Fraction(1, 2)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"would run code \(fractions\.Fraction\), so it was not loaded\nAsk for"):
        read_weights(tmp_path / "a.pth")


def test_views_are_carried_out(tmp_path):
    spiral = torch.arange(4) * (1 + 2j)
    state = {"conjugate": spiral.conj(), "negative": spiral.conj().imag}
    for key, tensor in state.items():
        torch.save({key: tensor}, tmp_path / "a.pth")
        np.testing.assert_array_equal(read_weights(tmp_path / "a.pth")[key].read(), tensor.resolve_conj().resolve_neg())


def test_a_zip_directory_with_a_flipped_bit(tmp_path):
    torch.save({"a": torch.ones(3), "b": torch.ones(3)}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    directory = content.index(b"PK\x01\x02")
    refused = 0
    for position in range(directory, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        (tmp_path / "a.pth").write_bytes(damaged)
        try:
            read_weights(tmp_path / "a.pth")
        except WeightsError:
            refused += 1
    assert refused > 20


def test_parameters_and_modules_state(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save(dict(module.named_parameters()) | dict(module.named_buffers()), tmp_path / "a.pth")
    assert_same(read_weights(tmp_path / "a.pth"), module.state_dict())


def test_entries_that_are_not_plain_tensors_are_all_named(tmp_path):
    state = {"a": torch.ones(2), "optimizer": {"lr": 0.1}, "sparse": torch.eye(2).to_sparse()}
    state["meta"] = torch.ones(2, device="meta")
    torch.save(state, tmp_path / "a.pth")
    entries = r"optimizer \(dict\), sparse \(Tensor\), meta \(a meta tensor, which has no numbers\)"
    with pytest.raises(WeightsError, match=f"3 entries .*{entries}"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("value", [[1, 2], torch.ones(2), {1: torch.ones(2)}])
def test_a_pickle_that_is_no_state_dict(tmp_path, value):
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="instead of a state dict"):
        read_weights(tmp_path / "a.pth")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_in_a_pickle_never_runs(tmp_path, how, protocol):
    file, trace = tmp_path / "a.bin", tmp_path / "ran"
    state = {"a": torch.ones(2), "b": Malicious(trace)}
    if how == "pickle":
        file.write_bytes(pickle.dumps({"b": Malicious(trace)}, protocol=protocol))
    else:
        torch.save(state, file, pickle_protocol=protocol, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(WeightsError) as error:
        read_weights(file)
    assert not trace.exists()
    if protocol == 2:
        assert "would run code" in str(error.value)
        if how == "zip":
            assert "mkdir" in str(error.value)


def test_damaged_pickles(tmp_path):
    whole = tmp_path / "whole.pth"
    for zipped in (True, False):
        torch.save({"a": torch.ones(1000), "b": torch.ones(1000)}, whole, _use_new_zipfile_serialization=zipped)
        content = whole.read_bytes()
        for part in (0, 1, 2, 30, 90, len(content) // 2, len(content) - 5):
            (tmp_path / "part.pth").write_bytes(content[:part])
            with pytest.raises(WeightsError, match=r"part\.pth: not a"):
                read_weights(tmp_path / "part.pth")


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"checkpoint\nabc\n", b"<html>"])
def test_text_files(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(WeightsError, match="not a PyTorch file"):
        read_weights(tmp_path / "a.bin")


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.bin", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(WeightsError, match="not a whole PyTorch file"):
        read_weights(tmp_path / "a.bin")


def test_without_torch_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    monkeypatch.delitem(sys.modules, "torch")
    original = builtins.__import__

    def no_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_torch)
    with pytest.raises(InterLCMError, match=r"pip install 'interlcm-jax\[parity\]'"):
        read_weights(tmp_path / "a.pth")


def test_a_torchscript_archive_is_refused_with_what_to_do(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but it is what OpenAI publishes CLIP in
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "ViT-B-16.pt")
    with pytest.raises(WeightsError, match=r"ViT-B-16\.pt: a TorchScript archive[^\n]*\n.*state_dict\(\)"):
        read_weights(tmp_path / "ViT-B-16.pt")


def test_floats_of_one_byte_are_named(tmp_path):
    torch.save({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a \(torch\.float8_e4m3fn\)"):
        read_weights(tmp_path / "a.pth")
