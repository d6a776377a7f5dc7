"""Real-ESRGAN's networks against PyTorch: numbers, names, and files both ways."""

import dataclasses
import json

import pytest
import torch

from interlcm_jax.convert.rules import places
from interlcm_jax.convert.upsampler import TABLES, export_upsampler, read_upsampler, write_upsampler
from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.models.upsampler import RRDBNet, RRDBNetConfig, SRVGGConfig, SRVGGNetCompact
from interlcm_jax.models.weights import skeleton
from tests.parity.bridge import NETWORK, abstract, assert_close, assert_same_weights, load, nhwc, randomize, run
from tests.parity.upsampler_twin import TorchRRDBNet, TorchSRVGG

KINDS = {"RRDBNet": (RRDBNet, TorchRRDBNet), "SRVGGNetCompact": (SRVGGNetCompact, TorchSRVGG)}
RRDB, COMPACT = RRDBNetConfig.miniature(), SRVGGConfig.miniature()
SIZES = [
    ("RRDBNet", RRDB),
    ("RRDBNet", dataclasses.replace(RRDB, scale=4)),
    ("RRDBNet", dataclasses.replace(RRDB, scale=1, num_blocks=1)),
    ("SRVGGNetCompact", COMPACT),
    ("SRVGGNetCompact", dataclasses.replace(COMPACT, scale=3)),
]


def picture(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "config"), SIZES)
@torch.no_grad()
def test_network(kind, config):
    ours, theirs = KINDS[kind]
    theirs = randomize(theirs(config))
    network = load(abstract(ours, config), theirs.state_dict(), TABLES[kind])
    x = picture(2, 3, 12, 16)
    enlarged = run(network, nhwc(x))
    assert enlarged.shape == (2, 12 * config.scale, 16 * config.scale, 3)
    assert_close(enlarged, theirs(x), NETWORK)


@pytest.mark.parametrize(
    ("kind", "config", "count"),
    [
        ("RRDBNet", RRDBNetConfig(), 16_697_987),
        ("RRDBNet", RRDBNetConfig(scale=2), 16_703_171),
        ("SRVGGNetCompact", SRVGGConfig(), 1_213_296),
    ],
    ids=["x4plus", "x2plus", "general-x4v3"],
)
def test_real_sizes_have_the_keys_and_shapes_of_pytorch(kind, config, count):
    ours, theirs = KINDS[kind]
    assert_same_weights(abstract(ours, config), lambda: theirs(config), TABLES[kind], count)


def test_some_names_of_the_release():
    """Written down by hand: the twins and the tables can't both be wrong in the same way."""
    names = {
        kind: {place.key for place in places(skeleton(abstract(KINDS[kind][0], config)), TABLES[kind]).values()}
        for kind, config in (("RRDBNet", RRDBNetConfig()), ("SRVGGNetCompact", SRVGGConfig()))
    }
    assert names["RRDBNet"] >= {
        "conv_first.weight",
        "body.0.rdb1.conv1.weight",
        "body.22.rdb3.conv5.bias",
        "conv_body.bias",
        "conv_up1.weight",
        "conv_up2.weight",
        "conv_hr.weight",
        "conv_last.bias",
    }
    assert names["SRVGGNetCompact"] >= {"body.0.weight", "body.1.weight", "body.65.weight", "body.66.bias"}
    assert "body.1.bias" not in names["SRVGGNetCompact"]


@pytest.mark.parametrize(("kind", "config"), SIZES)
@pytest.mark.parametrize("wrappers", [("params_ema", "params"), ("params",)], ids=["averaged", "plain"])
def test_files_there_and_back(kind, config, wrappers, tmp_path):
    """The configuration follows from the file, and the file comes back bit for bit."""
    state = randomize(KINDS[kind][1](config)).state_dict()
    worse = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save({name: state if name == wrappers[0] else worse for name in wrappers}, tmp_path / "published.pth")
    read = read_upsampler(tmp_path / "published.pth")
    assert (read.kind, read.config) == (kind, config)
    write_upsampler(read, tmp_path / "folder", "here", "BSD-3-Clause")
    description = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert (description["network"], description["origin"]) == (kind, "here")
    assert read_upsampler(tmp_path / "folder").config == config
    export_upsampler(tmp_path / "folder", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["params_ema"]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def broken(state, change):
    return {"params_ema": change(dict(state))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"extra.weight": s["conv_hr.weight"]}, "1 unexpected keys: extra.weight"),
        (lambda s: s | {"body.1.rdb2.conv3.bias": torch.zeros(5)}, r"body.1.rdb2.conv3.bias (5,) instead of (4,)"),
        (lambda s: {k: v for k, v in s.items() if "conv_up2" not in k}, "2 missing keys: conv_up2.bias, conv_up2.w"),
        (lambda s: {k: v for k, v in s.items() if "body.0.rdb1.conv1" not in k}, "body.0.rdb1.conv1.weight is missing"),
        (lambda s: s | {"conv_first.weight": torch.zeros(8, 5, 3, 3)}, "takes 5 channels, but an RGB photo folded"),
        (lambda s: s | {"conv_first.weight": torch.zeros(8)}, "conv_first.weight is [8], but must be a convolution's"),
        (lambda s: {"encoder.0.conv2d.weight": torch.zeros(1)}, "this looks like ParseNet; wanted is Real-ESRGAN's"),
        (lambda s: {"a": torch.zeros(1)}, "this looks like no network that is known here; wanted is Real-ESRGAN's"),
        (lambda s: {"body.0.weight": torch.zeros(8, 3, 3, 3)}, "body.0.weight gives 8 channels, but an RGB photo"),
    ],
)
def test_files_that_are_not_an_upsampler(change, message, tmp_path):
    torch.save(broken(TorchRRDBNet(RRDB).state_dict(), change), tmp_path / "bad.pth")
    with pytest.raises(WeightsError) as error:
        read_upsampler(tmp_path / "bad.pth")
    assert message in str(error.value)
    assert "bad.pth" in str(error.value)


def test_folders_that_are_not_an_upsampler(tmp_path):
    with pytest.raises(InterLCMError, match="no upsampler's folder"):
        read_upsampler(tmp_path)
    torch.save(TorchSRVGG(COMPACT).state_dict(), tmp_path / "a.pth")
    read = read_upsampler(tmp_path / "a.pth")
    write_upsampler(read, tmp_path / "folder", "", "")
    file = tmp_path / "folder" / "config.json"
    sizes = json.loads(file.read_text())
    for change, message in (
        ({"network": "UNet"}, "not an upsampler's, or of another version"),
        ({"sizes": {"channels": "8"}}, "channels='8'"),
        ({"sizes": {"channels": 16}}, "mis-shaped keys"),
    ):
        file.write_text(json.dumps(sizes | change))
        with pytest.raises(InterLCMError, match=message):
            read_upsampler(tmp_path / "folder")


def test_weights_that_are_not_finite(tmp_path):
    state = TorchSRVGG(COMPACT).state_dict()
    state["body.2.bias"][0] = torch.nan
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"1 weights with NaN or infinity: body\.2\.bias"):
        write_upsampler(read_upsampler(tmp_path / "a.pth"), tmp_path / "folder", "", "")
    assert not (tmp_path / "folder").exists()
