"""Single-file checkpoints in CompVis' layout: ours against diffusers' own converters, key by key."""

import dataclasses

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file

from interlcm_jax.convert import compvis, unet, vae
from interlcm_jax.convert.checkpoints import read_weights
from interlcm_jax.convert.network import load_published
from interlcm_jax.convert.pickles import lazy_tensors
from interlcm_jax.convert.rules import to_jax, to_torch
from interlcm_jax.errors import WeightsError
from interlcm_jax.files.safetensors import open_safetensors
from interlcm_jax.model_folder import read_config
from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.weights import lazy_weights, skeleton, weight_specs
from tests.parity.bridge import randomize
from tests.parity.release_files import convert

# Heads and groups as in Stable Diffusion 1, since no weight tells them.
UNET = UNetConfig(
    block_out_channels=(32, 64, 64),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=2,
    cross_attention_dim=48,
)
CONTROLNET = ControlNetConfig.from_unet(UNET)
VAE = VAEConfig(block_out_channels=(32, 32, 64, 64), layers_per_block=1)

RESNET = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection")
ATTENTION = [f"attn{i}.{part}" for i in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")]
BLOCK = [*ATTENTION, "ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"]
TRANSFORMER = ["norm", "proj_in", "proj_out", *(f"transformer_blocks.0.{part}" for part in BLOCK)]


def resnet(name):
    return [f"{name}.{part}" for part in RESNET]


def transformer(name):
    return [f"{name}.{part}" for part in TRANSFORMER]


def encoder(attends, layers):
    """The modules of openaimodel.py's `UNetModel` up to the middle, in the order it makes them."""
    modules, number = ["time_embed.0", "time_embed.2", "input_blocks.0.0"], 1
    for level, attend in enumerate(attends):
        for _ in range(layers):
            modules += resnet(f"input_blocks.{number}.0") + (transformer(f"input_blocks.{number}.1") if attend else [])
            number += 1
        if level < len(attends) - 1:
            modules.append(f"input_blocks.{number}.0.op")
            number += 1
    return modules + resnet("middle_block.0") + transformer("middle_block.1") + resnet("middle_block.2"), number


def unet_modules(attends=(True, True, False), layers=2):
    modules, number = encoder(attends, layers)[0], 0
    for level, attend in reversed(list(enumerate(attends))):
        for i in range(layers + 1):
            inner = resnet(f"output_blocks.{number}.0") + (transformer(f"output_blocks.{number}.1") if attend else [])
            if level and i == layers:
                inner.append(f"output_blocks.{number}.{2 if attend else 1}.conv")
            modules += inner
            number += 1
    return [*modules, "out.0", "out.2"]


def controlnet_modules():
    modules, number = encoder((True, True, False), 2)
    hints = [f"input_hint_block.{i}" for i in range(0, 15, 2)]
    return [*modules, *hints, *(f"zero_convs.{i}.0" for i in range(number)), "middle_block_out.0"]


def vae_modules(levels=4, layers=1):
    modules = ["quant_conv", "post_quant_conv"]
    parts = ("norm1", "conv1", "norm2", "conv2", "nin_shortcut")
    for side, level, count, resize in (("encoder", "down", layers, "down"), ("decoder", "up", layers + 1, "up")):
        resnets = [f"{side}.mid.block_1", f"{side}.mid.block_2"]
        for i in range(levels):
            resnets += [f"{side}.{level}.{i}.block.{j}" for j in range(count)]
            modules.append(f"{side}.{level}.{i}.{resize}sample.conv")
        modules += [f"{name}.{part}" for name in resnets for part in parts]
        modules += [f"{side}.mid.attn_1.{part}" for part in ("norm", "q", "k", "v", "proj_out")]
        modules += [f"{side}.{part}" for part in ("conv_in", "norm_out", "conv_out")]
    return modules


def in_compvis_layout(network, modules, converter):
    """The network's weights under CompVis' names, which diffusers' own converter ties to its own."""
    names = [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    numbered = converter({name: torch.tensor([i]) for i, name in enumerate(names)}, network.config)
    state = network.state_dict()
    # `names` also has biases and shortcuts that this network lacks, and diffusers may read none but these.
    found = {names[int(number)]: state[key] for key, number in numbered.items() if key in state and number is not None}
    assert len(found) == len(state)
    return {
        name: tensor[:, :, None, None] if ".attn_1." in name and tensor.ndim == 2 else tensor
        for name, tensor in found.items()
    }


def unet_converter(state, config):
    prefixed = {f"model.diffusion_model.{key}": tensor for key, tensor in state.items()}
    return single_file_utils.convert_ldm_unet_checkpoint(prefixed, config)


def build(kind, config, seed):
    return randomize(kind.from_config(config.to_json()), seed)


CASES = {
    "unet": (compvis.read_unet, diffusers.UNet2DConditionModel, UNET, unet_modules(), unet_converter),
    "controlnet": (
        compvis.read_controlnet,
        diffusers.ControlNetModel,
        CONTROLNET,
        controlnet_modules(),
        single_file_utils.convert_controlnet_checkpoint,
    ),
    "vae": (
        compvis.read_vae,
        diffusers.AutoencoderKL,
        VAE,
        vae_modules(),
        single_file_utils.convert_ldm_vae_checkpoint,
    ),
}
PREFIXES = {"unet": "model.diffusion_model.", "controlnet": "control_model.", "vae": "first_stage_model."}


@pytest.fixture(scope="module")
def networks():
    """Each network of diffusers, and its weights in CompVis' layout."""
    made = {}
    for seed, (name, (_, theirs, config, modules, converter)) in enumerate(CASES.items()):
        network = build(theirs, config, seed)
        made[name] = network, in_compvis_layout(network, modules, converter)
    return made


def prefixed(name, state):
    return {PREFIXES[name] + key: tensor.contiguous() for key, tensor in state.items()}


def checkpoint(unet, vae):
    """A whole checkpoint, with what else is in one."""
    text = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    others = {text: torch.arange(3), "betas": torch.ones(3), "model_ema.decay": torch.tensor(0.5)}
    return prefixed("unet", unet) | prefixed("vae", vae) | others


@pytest.mark.parametrize(
    ("name", "form"),
    [*((name, "safetensors") for name in CASES), ("vae", "bare.sft"), ("controlnet", "bare.sft"), ("vae", "CKPT")],
)
def test_one_file_holds_what_diffusers_finds_in_it(networks, tmp_path, name, form):
    network, state = networks[name]
    path = tmp_path / f"model.{form}"
    whole = prefixed(name, state) if name == "controlnet" else checkpoint(networks["unet"][1], networks["vae"][1])
    if form == "CKPT":
        torch.save({"state_dict": whole, "epoch": 3, "global_step": 5}, path)
    else:
        save_file({k: t.contiguous() for k, t in (state if form.startswith("bare") else whole).items()}, path)
    reader, _, expected, *_ = CASES[name]
    config, weights = reader(read_weights(path), path)
    assert config == expected
    assert weights.keys() == network.state_dict().keys()
    for key, tensor in network.state_dict().items():
        assert torch.equal(torch.from_numpy(weights[key].read()).reshape(tensor.shape), tensor), key


def test_loading_takes_attention_as_convolutions(networks, tmp_path):
    network, state = networks["vae"]
    save_file(prefixed("vae", state), tmp_path / "vae.safetensors")
    ours = load_published(AutoencoderKL, tmp_path / "vae.safetensors")
    weights = to_torch(lazy_weights(ours), skeleton(ours), vae.TABLE)
    for key, tensor in network.state_dict().items():
        assert torch.equal(torch.from_numpy(weights[key].read().copy()), tensor), key


def test_an_lcm_in_one_file_keeps_its_guidance_embedding(networks):
    state = networks["unet"][1] | {"time_embed.cond_proj.weight": torch.ones(32, 16)}
    config, weights = compvis.read_unet(lazy_tensors(prefixed("unet", state), "lcm"), "lcm")
    assert config == dataclasses.replace(UNET, time_cond_proj_dim=16)
    assert weights["time_embedding.cond_proj.weight"].shape == (32, 16)


def load_unet(tensors):
    config, weights = compvis.read_unet(tensors, "file")
    return to_jax(weights, weight_specs(UNet2DCondition, config), unet.TABLE, "file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_emb.0.0.weight": torch.ones(2, 2)}, "Stable Diffusion XL"),
        ({"middle_block.1.proj_in.weight": torch.ones(64, 64)}, "Stable Diffusion 2"),
        ({"out.2.weight": None}, "1 missing keys: out.2.weight"),
        ({"out.2.bias": None, "stray.weight": torch.ones(1)}, r"missing keys: conv_out\.bias\n.*keys: stray\.weight"),
        ({"input_blocks.1.0.op.weight": torch.ones(1)}, "input blocks, which are too few"),
        ({"input_blocks.1000000000.0.op.weight": torch.ones(1)}, "unexpected keys: input_blocks.1000000000"),
        ({"conv_in.weight": torch.ones(1)}, "1 duplicate keys: conv_in.weight"),
    ],
)
def test_a_unet_of_another_kind_is_named(networks, changes, message):
    state = {key: tensor for key, tensor in (networks["unet"][1] | changes).items() if tensor is not None}
    with pytest.raises(WeightsError, match=message):
        load_unet(lazy_tensors(prefixed("unet", state), "file"))


def test_a_checkpoint_without_the_network_asked_for(networks, tmp_path):
    save_file(prefixed("vae", networks["vae"][1]), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="no ControlNet in CompVis' layout"):
        load_published(ControlNet, tmp_path / "model.safetensors")


def test_convert_takes_a_checkpoint_for_the_lcm(files, networks, tmp_path):
    sizes = {"block_out_channels": (32, 32), "layers_per_block": 1, "down_block_types": UNET.down_block_types[1:]}
    config = dataclasses.replace(UNET, **sizes, up_block_types=UNET.up_block_types[:2])
    network = build(diffusers.UNet2DConditionModel, config, 5)
    lcm = in_compvis_layout(network, unet_modules((True, False), 1), unet_converter)
    spatial = build(diffusers.ControlNetModel, ControlNetConfig.from_unet(config), 6)
    save_file(spatial.state_dict(), tmp_path / "spatial.safetensors")
    save_file(checkpoint(lcm, networks["vae"][1]), tmp_path / "anything-v3.safetensors")
    sources = {"lcm": tmp_path / "anything-v3.safetensors", "spatial_encoder": tmp_path / "spatial.safetensors"}
    assert convert(files, tmp_path / "model", **sources) == 0
    found = read_config(tmp_path / "model")
    assert (found.unet, found.vae) == (config, VAE)
    assert found.weights["unet"]["origin"] == "anything-v3.safetensors/unet"
    stored = open_safetensors(tmp_path / "model" / "vae.safetensors")
    kernel = networks["vae"][0].encoder.mid_block.attentions[0].to_q.weight.detach()
    assert torch.equal(torch.from_numpy(stored["encoder.mid_block.attentions.0.to_q.kernel"].read()), kernel.T)
