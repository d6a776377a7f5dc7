"""MUSIQ against PyTorch: root, layer, network, whole images, and the two formats of the published weights."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from interlcm_jax.convert.musiq import OFFICIAL_TABLE, TABLE
from interlcm_jax.convert.rules import places
from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.metrics import musiq
from interlcm_jax.metrics.musiq import MUSIQScorer
from interlcm_jax.metrics.musiq_network import MUSIQ, MUSIQConfig
from interlcm_jax.models.weights import skeleton
from tests.parity.bridge import BLOCK, NETWORK, abstract, assert_close, load, nhwc, randomize, run
from tests.parity.musiq_twin import TorchMUSIQ

MINIATURE = MUSIQConfig.miniature()


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def twins(config=MINIATURE):
    theirs = randomize(TorchMUSIQ(config))
    # These are learned, and far from zero.
    for table in (theirs.transformer_encoder.posembed_input, theirs.transformer_encoder.scaleembed_input):
        next(table.parameters()).mul_(10)
    theirs.transformer_encoder.cls.copy_(noise(1, 1, config.hidden_size))
    return theirs, load(abstract(MUSIQ, config), theirs.state_dict(), TABLE)


def images(height, width, count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def torch_scores(theirs, pictures):
    return theirs(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)


def tokens(length=11, count=2):
    rng = np.random.default_rng(0)
    positions = rng.integers(0, MINIATURE.grid_size**2, (count, length))
    scales = rng.integers(0, 3, (count, length))
    mask = rng.random((count, length)) < 0.7
    return positions, scales, mask


@torch.no_grad()
def test_root_and_block():
    theirs, ours = twins()
    x = noise(6, 3, 8, 8)
    features = run(ours, nhwc(x)[None], method="_features")[0]
    assert_close(features, theirs.root(x).permute(0, 2, 3, 1).flatten(1), BLOCK)


@torch.no_grad()
def test_layer():
    theirs, ours = twins()
    x, (_, _, mask) = noise(2, 11, MINIATURE.hidden_size), tokens()
    mask[:, 0] = True
    wanted = theirs.transformer_encoder.transformer["encoderblock_1"](x, torch.from_numpy(mask))
    actual = run(ours.layers[1], jnp.asarray(x.numpy()), jnp.asarray(mask))
    # A masked query attends to nothing in particular; nobody looks at what it gets.
    assert_close(actual[mask], wanted[torch.from_numpy(mask)], BLOCK)


@torch.no_grad()
def test_network():
    theirs, ours = twins()
    # Many short images, so that the scores have a spread to be compared by.
    pixels, (positions, scales, mask) = noise(12, 11, 3, 8, 8), tokens(count=12)
    wanted = theirs.score(pixels, *(torch.from_numpy(a) for a in (positions, scales, mask)))
    arrays = (jnp.asarray(pixels.numpy().transpose(0, 1, 3, 4, 2)), positions.astype(np.int32), scales.astype(np.int32))
    assert_close(run(ours, *arrays, mask), wanted, NETWORK)


@pytest.mark.parametrize("size", [(33, 47), (48, 20), (13, 16)])
@torch.no_grad()
def test_scores_of_images(size):
    theirs, ours = twins()
    pictures = images(*size, count=3)
    wanted = torch_scores(theirs, pictures).numpy()
    np.testing.assert_allclose(MUSIQScorer(ours)(pictures), wanted, rtol=0, atol=NETWORK)
    assert wanted.std() > 1e-3


@torch.no_grad()
def test_real_size_by_number():
    """One image of an odd size."""
    theirs, ours = twins(MUSIQConfig())
    pictures = images(100, 150, count=1)
    wanted = torch_scores(theirs, pictures).numpy()
    assert 0.05 < abs(wanted[0]) < 5
    np.testing.assert_allclose(MUSIQScorer(ours)(pictures), wanted, rtol=0, atol=NETWORK)


def test_real_size_has_the_keys_and_shapes_of_pytorch():
    with torch.device("meta"):
        theirs = TorchMUSIQ(MUSIQConfig())
    shapes = skeleton(abstract(MUSIQ, MUSIQConfig()))
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {place.key: place.shape for place in places(shapes, TABLE).values()} == expected
    count = sum(p.numel() for p in theirs.parameters())
    # The published file is 108,610,983 bytes: these in float32, and some 430 bytes of header for each of 248.
    assert (count, len(expected)) == (27_125_825, 248)
    patches = [jax.ShapeDtypeStruct((2, 449, *rest), dtype) for rest, dtype in (((32, 32, 3), jnp.float32), ((), int))]
    mask = jax.ShapeDtypeStruct((2, 449), bool)
    network = abstract(MUSIQ, MUSIQConfig())
    scores = nnx.eval_shape(lambda network, *a: network(*a), network, patches[0], patches[1], patches[1], mask)
    assert (scores.shape, scores.dtype) == ((2,), jnp.float32)


def test_some_names_of_the_releases():
    """Written down by hand: the twin and the tables can't both be wrong in the same way."""
    shapes = skeleton(abstract(MUSIQ, MUSIQConfig()))
    assert {place.key for place in places(shapes, TABLE).values()} >= {
        "conv_root.weight",
        "gn_root.bias",
        "block1.conv_proj.weight",
        "block1.gn_proj.weight",
        "embedding.bias",
        "transformer_encoder.posembed_input.position_emb",
        "transformer_encoder.scaleembed_input.scale_emb",
        "transformer_encoder.cls",
        "transformer_encoder.encoder_norm.weight",
        "transformer_encoder.transformer.encoderblock_13.attention.query.bias",
        "transformer_encoder.transformer.encoderblock_0.norm2.weight",
        "transformer_encoder.transformer.encoderblock_7.mlp.fc2.weight",
        "head.weight",
    }
    assert {place.key for place in places(shapes, OFFICIAL_TABLE).values()} >= {
        "opt/target/conv_root/kernel",
        "opt/target/gn_root/scale",
        "opt/target/block1/unit1/conv_proj/kernel",
        "opt/target/block1/unit1/gn3/bias",
        "opt/target/embedding/kernel",
        "opt/target/Transformer/posembed_input/pos_embedding",
        "opt/target/Transformer/scaleembed_input/scale_embedding",
        "opt/target/Transformer/cls",
        "opt/target/Transformer/encoder_norm/scale",
        "opt/target/Transformer/encoderblock_0/LayerNorm_0/scale",
        "opt/target/Transformer/encoderblock_13/MultiHeadDotProductAttention_1/out/kernel",
        "opt/target/Transformer/encoderblock_5/LayerNorm_2/bias",
        "opt/target/Transformer/encoderblock_5/MlpBlock_3/Dense_1/kernel",
        "opt/target/head/bias",
    }


def official(theirs):
    """The twin's weights as Google's training writes them: other names, and other axes."""
    config, arrays = theirs.config, {}
    heads = (config.num_attention_heads, -1)
    names = {
        "norm1": "LayerNorm_0",
        "norm2": "LayerNorm_2",
        "mlp.fc1": "MlpBlock_3.Dense_0",
        "mlp.fc2": "MlpBlock_3.Dense_1",
    }
    names |= {
        "attention": "MultiHeadDotProductAttention_1",
        "posembed_input.position_emb": "posembed_input.pos_embedding",
    }
    names |= {"scaleembed_input.scale_emb": "scaleembed_input.scale_embedding", "block1": "block1.unit1"}
    names |= {"transformer_encoder.transformer": "Transformer", "transformer_encoder": "Transformer"}
    for key, tensor in theirs.state_dict().items():
        array, name = tensor.numpy(), key
        for old, new in names.items():
            name = re.sub(rf"(^|\.){re.escape(old)}(?=\.|$)", rf"\1{new}", name)
        if "conv" in key:
            array = array.transpose(2, 3, 1, 0)
        elif match := re.search(r"(query|key|value|out)\.(\w+)$", key):
            array = array.T if match[2] == "weight" else array
            if match[1] != "out":
                array = array.reshape(*array.shape[:-1], *heads)
            elif match[2] == "weight":
                array = array.reshape(*heads, array.shape[-1])
        elif re.search(r"\.gn|^gn", key):
            array = array[None, None, None]
        elif "scale_emb" in key:
            array = array[None]
        elif array.ndim == 2:
            array = array.T
        leaf = "scale" if re.search(r"norm|gn", key) else "kernel"
        arrays["opt/target/" + re.sub(r"weight$", leaf, name).replace(".", "/")] = array
    return arrays


@torch.no_grad()
def test_both_published_formats_and_ours_give_one_score(tmp_path):
    theirs, _ = twins()
    pictures = images(33, 47)
    wanted = torch_scores(theirs, pictures).numpy()
    torch.save(theirs.state_dict(), tmp_path / "koniq.pth")
    optimizer = {"opt/state/step": np.int64(7), "opt/state/param_states/head/kernel/momentum": np.zeros(3)}
    np.savez(tmp_path / "koniq.npz", **official(theirs), **optimizer)
    scorers = [musiq.load(tmp_path / name, config=MINIATURE) for name in ("koniq.pth", "koniq.npz")]
    musiq.save(tmp_path / "koniq.safetensors", scorers[0])
    scorers.append(musiq.load(tmp_path / "koniq.safetensors", config=MINIATURE))
    for scorer in scorers:
        np.testing.assert_allclose(scorer(pictures), wanted, rtol=0, atol=NETWORK)


def test_files_that_arent_musiqs_are_refused(tmp_path):
    with pytest.raises(InterLCMError, match=r"no such file.*musiq_koniq_ckpt-e95806b9\.pth.*koniq_ckpt\.npz"):
        musiq.load(tmp_path / "koniq.pth")
    state = randomize(TorchMUSIQ(MINIATURE)).state_dict()
    del state["head.bias"]
    state["more"] = state["gn_root.bias"]
    state["embedding.weight"] = state["embedding.weight"][:, 1:]
    torch.save(state, tmp_path / "koniq.pth")
    wrong = r"missing keys: head\.bias\n.*unexpected keys: more\n.*mis-shaped keys: embedding\.weight"
    with pytest.raises(WeightsError, match=wrong):
        musiq.load(tmp_path / "koniq.pth", config=MINIATURE)
    path = tmp_path / "koniq.npz"
    arrays = official(randomize(TorchMUSIQ(MINIATURE)))
    bias, kernel = (
        "opt/target/head/bias",
        "opt/target/Transformer/encoderblock_0/MultiHeadDotProductAttention_1/key/kernel",
    )
    del arrays[bias]
    arrays["opt/target/pre_logits/bias"] = np.zeros(3, np.float32)
    arrays[kernel] = arrays[kernel][:-1]
    np.savez(path, **arrays)
    with pytest.raises(WeightsError, match=rf"missing keys: {bias}\n.*unexpected keys: .*pre_logits.*\n.*{kernel}"):
        musiq.load(path, config=MINIATURE)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(WeightsError, match=r"not a whole NumPy \.npz file"):
        musiq.load(path, config=MINIATURE)


def test_config_round_trip():
    assert MUSIQConfig.from_json(json.loads(json.dumps(MINIATURE.to_json()))) == MINIATURE
