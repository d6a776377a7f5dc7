"""CLIP's vision tower against transformers, and against a twin of OpenAI's own layout."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from interlcm_jax.convert.clip_vision import TABLE, from_openai, is_openai, openai_config
from interlcm_jax.convert.rules import to_jax
from interlcm_jax.files.safetensors import LazyTensor, from_array, open_safetensors
from interlcm_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from interlcm_jax.models.weights import skeleton
from tests.parity import bridge

MINIATURE = CLIPVisionConfig.miniature()


def reference(config=MINIATURE):
    settings = transformers.CLIPVisionConfig(**config.to_json())
    return bridge.randomize(transformers.CLIPVisionModel(settings))


def network(config=MINIATURE):
    """Without values: the conversion gives it all of them."""
    return nnx.eval_shape(lambda: CLIPVision(config, rngs=nnx.Rngs(0)))


def pixels(batch=1, size=MINIATURE.image_size):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def apply(model, images):
    return jax.jit(lambda x: model(x))(bridge.nhwc(images))


@torch.no_grad()
def tokens(module, images):
    return module.post_layernorm(module(images).last_hidden_state)


def abstract(shapes):
    """Tensors known by shape only: reading one would fail."""
    return {key: LazyTensor(tuple(shape), np.dtype(np.float32), "meta", None) for key, shape in shapes.items()}


def on_meta(model, config):
    with torch.device("meta"):
        return {key: value.shape for key, value in model(config).state_dict().items()}


def with_prefix(state_dict):
    return {f"vision_model.{key}": value for key, value in state_dict.items()}


def assert_bitwise(network, other):
    ours, theirs = (nnx.to_flat_state(nnx.state(n, nnx.Param)) for n in (network, other))
    for (path, leaf), (_, wanted) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(leaf.get_value(), wanted.get_value(), err_msg=str(path))


@pytest.mark.parametrize("batch", [1, 3])
def test_tokens(batch):
    module, images = reference(), pixels(batch)
    ours = bridge.load(network(), module.state_dict(), TABLE)
    bridge.assert_close(apply(ours, images), tokens(module, images), bridge.NETWORK)


def test_image_size_that_the_patches_do_not_fill():
    config = CLIPVisionConfig(37, 8, 48, 96, 1, 3)
    module, images = reference(config), pixels(size=37)
    ours = bridge.load(network(config), module.state_dict(), TABLE)
    bridge.assert_close(apply(ours, images), tokens(module, images), bridge.NETWORK)


def test_every_epsilon_shows_where_activations_are_small():
    module = reference()
    for name, tensor in module.state_dict().items():
        if name.startswith(("embeddings", "pre_layrnorm")) or "out_proj" in name or "fc2" in name:
            tensor *= 1e-2
    ours = bridge.load(network(), module.state_dict(), TABLE)
    images = pixels()
    bridge.assert_close(apply(ours, images), tokens(module, images), bridge.NETWORK)


def test_folder_that_transformers_saves(tmp_path):
    module, images = reference(), pixels()
    module.save_pretrained(tmp_path)
    config = CLIPVisionConfig.from_json(json.loads((tmp_path / "config.json").read_text()))
    assert config == MINIATURE
    ours = network(config)
    weights = to_jax(open_safetensors(tmp_path / "model.safetensors"), skeleton(ours), TABLE, tmp_path)
    state = nnx.state(ours, nnx.Param)
    for path, leaf in nnx.to_flat_state(state):
        leaf.set_value(jnp.asarray(weights[".".join(map(str, path))].read()))
    bridge.assert_close(apply(ours, images), tokens(module, images), bridge.NETWORK)


def test_whole_clip_and_prefixed_keys_give_the_same_weights(tmp_path):
    text = transformers.CLIPTextConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    vision = transformers.CLIPVisionConfig(**MINIATURE.to_json())
    both = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    module = bridge.randomize(transformers.CLIPModel(both))
    both.save_pretrained(tmp_path)
    config = CLIPVisionConfig.from_json(json.loads((tmp_path / "config.json").read_text()))
    assert config == MINIATURE
    whole = bridge.load(network(config), module.state_dict(), TABLE)
    alone = module.vision_model.state_dict()
    assert_bitwise(whole, bridge.load(network(), alone, TABLE))
    historical = {**with_prefix(alone), "vision_model.embeddings.position_ids": torch.arange(17)[None]}
    assert_bitwise(whole, bridge.load(network(), historical, TABLE))


@pytest.mark.parametrize(
    "published",
    [
        {"model_type": "clip", "vision_config": {"patch_size": 16}},
        {"model_type": "clip", "vision_config": {"patch_size": 16}, "vision_config_dict": None},
        {"model_type": "clip_vision_model", "patch_size": 16},
    ],
)
def test_real_key_list_and_absent_settings(published):
    nested = published.get("vision_config", published)
    theirs = transformers.CLIPVisionConfig(**nested)
    config = CLIPVisionConfig.from_json(published)
    assert config == CLIPVisionConfig.vit_b_16()
    assert all(getattr(theirs, name) == value for name, value in config.to_json().items())
    skeletal = skeleton(network(config))
    vision = on_meta(transformers.CLIPVisionModel, theirs)
    assert len(to_jax(abstract(vision), skeletal, TABLE, "meta")) == len(vision)
    assert len(to_jax(abstract(with_prefix(vision)), skeletal, TABLE, "meta")) == len(vision)


def test_real_key_list_of_whole_clip():
    skeletal = skeleton(network(CLIPVisionConfig.vit_b_16()))
    both = on_meta(transformers.CLIPModel, transformers.CLIPConfig(vision_config={"patch_size": 16}))
    assert len(to_jax(abstract(both), skeletal, TABLE, "meta")) == len(skeletal)
    assert openai_config(abstract(on_meta(OpenAIVision, CLIPVisionConfig.vit_b_16()))) == CLIPVisionConfig.vit_b_16()


class OpenAIBlock(torch.nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attn = torch.nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.mlp = torch.nn.ModuleDict(
            {"c_fc": torch.nn.Linear(width, hidden), "c_proj": torch.nn.Linear(hidden, width)}
        )

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class OpenAITower(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.conv1 = torch.nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = torch.nn.Parameter(torch.empty(width))
        self.positional_embedding = torch.nn.Parameter(torch.empty(config.num_tokens, width))
        self.ln_pre, self.ln_post = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.transformer = torch.nn.Module()
        self.transformer.resblocks = torch.nn.Sequential(
            *(OpenAIBlock(width, config.intermediate_size) for _ in range(config.num_hidden_layers))
        )
        self.proj = torch.nn.Parameter(torch.empty(width, 8))

    def forward(self, images):
        x = self.conv1(images).flatten(2).mT
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer.resblocks(self.ln_pre(x)))


class OpenAIVision(torch.nn.Module):
    """A CLIP in OpenAI's layout; of the text side there are the names only."""

    def __init__(self, config):
        super().__init__()
        self.visual = OpenAITower(config)
        self.transformer = torch.nn.Linear(1, 1)
        self.token_embedding = torch.nn.Embedding(1, 1)
        self.positional_embedding = torch.nn.Parameter(torch.empty(1, 1))
        self.ln_final = torch.nn.LayerNorm(1)
        self.text_projection = torch.nn.Parameter(torch.empty(1, 1))
        self.logit_scale = torch.nn.Parameter(torch.empty(()))
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(1))


def test_openai_layout():
    config = CLIPVisionConfig(32, 8, 192, 256, 2, 3)
    module, images = bridge.randomize(OpenAIVision(config)), pixels()
    source = {key: from_array(value.numpy(), "test") for key, value in module.state_dict().items()}
    assert is_openai(source.keys())
    assert openai_config(source) == config
    renamed = {key: torch.from_numpy(tensor.read()) for key, tensor in from_openai(source).items()}
    ours = bridge.load(network(config), renamed, TABLE)
    bridge.assert_close(apply(ours, images), module.visual(images), bridge.NETWORK)

    published = reference(config)
    assert not is_openai(published.state_dict().keys())
    published.load_state_dict({key.removeprefix("vision_model."): value for key, value in renamed.items()})
    torch.testing.assert_close(tokens(published, images), module.visual(images).detach(), atol=5e-5, rtol=0)
    assert_bitwise(ours, bridge.load(network(config), published.state_dict(), TABLE))
