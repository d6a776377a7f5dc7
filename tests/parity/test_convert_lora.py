"""LoRA merged into a UNet: against PyTorch's layers with the update beside them, in each way that files name them."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from safetensors.torch import save_file

from interlcm_jax.convert.lora import merge
from interlcm_jax.convert.pickles import lazy_tensors
from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.files.safetensors import open_safetensors
from interlcm_jax.model_folder import ModelConfig, read_config
from tests.parity import release
from tests.parity.release_files import UNET, convert, load

ALPHA, RANK = 3.0, 2
LAYERS = [
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "mid_block.attentions.0.proj_in",  # a convolution of size 1
    "up_blocks.1.resnets.0.conv1",  # of size 3
    "down_blocks.0.downsamplers.0.conv",
]


@pytest.fixture(scope="module")
def state():
    return release.unet(ModelConfig.miniature()).state_dict()


@pytest.fixture(scope="module")
def factors(state):
    """Both factors of each layer's update, as PyTorch's layers hold them."""
    generator, made = torch.Generator().manual_seed(0), {}
    for layer in LAYERS:
        out, *rest = state[f"{layer}.weight"].shape
        down = torch.randn((RANK, *rest), generator=generator)
        made[layer] = down, torch.randn((out, RANK, *[1] * (len(rest) - 1)), generator=generator)
    return made


def kohya(factors):
    file = {}
    for layer, (down, up) in factors.items():
        name = f"lora_unet_{layer.replace('.', '_')}"
        file |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(ALPHA)}
    return file | {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(1, 1)}


def peft(factors):
    file = {f"text_encoder.{LAYERS[0]}.lora_A.weight": torch.ones(1, 1)}
    for layer, (down, up) in factors.items():
        file |= {f"unet.{layer}.lora_A.weight": down * ALPHA / RANK, f"unet.{layer}.lora_B.weight": up}
    return file


def attention_processors(factors):
    file = {}
    for layer, (down, up) in factors.items():
        name = re.sub(r"\.(to_q|to_out)(\.0)?$", r".processor.\1_lora", layer)
        kinds = (".down", ".up") if name != layer else (".lora.down", ".lora.up")
        file |= {f"{name}{kinds[0]}.weight": down * ALPHA / RANK, f"{name}{kinds[1]}.weight": up}
    return file


def renamed_by_diffusers(factors):
    unet = {key: tensor for key, tensor in kohya(factors).items() if key.startswith("lora_unet_")}
    renamed, alphas = _convert_non_diffusers_lora_to_diffusers(unet)
    assert set(alphas.values()) == {ALPHA}
    return {key: tensor * (ALPHA / RANK if ".down." in key else 1) for key, tensor in renamed.items()}


def apply(weight, x):
    return F.linear(x, weight) if weight.ndim == 2 else F.conv2d(x, weight, padding=weight.shape[-1] // 2)


@pytest.mark.parametrize("form", [kohya, peft, attention_processors, renamed_by_diffusers])
def test_a_merged_layer_is_the_layer_and_its_update(state, factors, tmp_path, form):
    save_file({key: tensor.contiguous() for key, tensor in form(factors).items()}, tmp_path / "lora.safetensors")
    merged = merge(lazy_tensors(state, tmp_path), tmp_path / "lora.safetensors")
    assert merged.keys() == state.keys()
    for key, tensor in state.items():
        found = torch.from_numpy(merged[key].read())
        layer = key.removesuffix(".weight")
        if layer not in factors:
            assert torch.equal(found, tensor), key
            continue
        down, up = factors[layer]
        x = torch.randn((2, tensor.shape[1], *[6] * (tensor.ndim - 2)), generator=torch.Generator().manual_seed(1))
        expected = apply(tensor, x) + ALPHA / RANK * apply(up, apply(down, x))
        np.testing.assert_allclose(apply(found, x), expected, atol=2e-5 * expected.abs().max(), err_msg=key)


def test_half_precision_is_rounded_once(state, factors, tmp_path):
    save_file(kohya(factors), tmp_path / "lora.safetensors")
    key = f"{LAYERS[0]}.weight"
    down, up = factors[LAYERS[0]]
    half = {name: tensor.half() for name, tensor in state.items()}
    merged = merge(lazy_tensors(half, tmp_path), tmp_path / "lora.safetensors")
    expected = (half[key].float() + ALPHA / RANK * up @ down).half()
    assert merged[key].dtype == np.float16
    np.testing.assert_allclose(merged[key].read(), expected, rtol=1e-3)
    np.testing.assert_array_equal(merged[key].read(np.s_[1:3, :2]), merged[key].read()[1:3, :2])


def test_alpha_may_stand_in_the_header(state, factors, tmp_path):
    header = {"lora_adapter_metadata": '{"unet.r": 2, "unet.lora_alpha": 6}'}
    save_file(peft(factors), tmp_path / "six.safetensors", header)
    save_file(peft(factors), tmp_path / "rank.safetensors")
    key = f"{LAYERS[0]}.weight"
    files = [tmp_path / f"{name}.safetensors" for name in ("six", "rank")]
    six, rank = (merge(lazy_tensors(state, tmp_path), file)[key].read() for file in files)
    weight = state[key].numpy()
    np.testing.assert_allclose(six - weight, 3 * (rank - weight), rtol=1e-4, atol=1e-5)
    save_file(peft(factors), tmp_path / "six.safetensors", {"lora_adapter_metadata": '{"unet.use_rslora": true}'})
    with pytest.raises(WeightsError, match="use_rslora"):
        merge(lazy_tensors(state, tmp_path), tmp_path / "six.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_unet_mid_block_attentions_7_proj_in.alpha": torch.ones(1)}, r"unexpected keys: .*attentions_7_proj_in"),
        ({"lora_unet_mid_block_attentions_0_proj_in.dora_scale": torch.ones(1)}, "unexpected keys: .*dora_scale"),
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": None}, "proj_in.weight: one factor"),
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.ones(5, 2, 1, 1)}, r"shapes \(5, 2, 1, 1\)"),
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(())}, r"shapes \(32, 2, 1, 1\) and"),
        ({"lora_unet_mid_block_attentions_0_proj_in.alpha": torch.ones(2)}, "its alpha is no number"),
    ],
)
def test_updates_that_do_not_fit_are_named(state, factors, tmp_path, changes, message):
    file = {key: tensor for key, tensor in (kohya(factors) | changes).items() if tensor is not None}
    save_file(file, tmp_path / "lora.safetensors")
    with pytest.raises(WeightsError, match=message):
        merge(lazy_tensors(state, tmp_path), tmp_path / "lora.safetensors")


def test_files_that_hold_no_lora(state, factors, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InterLCMError, match="no pytorch_lora_weights weights"):
        merge(lazy_tensors(state, tmp_path), tmp_path / "empty")
    save_file({"lora_te_x.alpha": torch.ones(1)}, tmp_path / "text.safetensors")
    with pytest.raises(WeightsError, match="no LoRA of a UNet"):
        merge(lazy_tensors(state, tmp_path), tmp_path / "text.safetensors")


def test_convert_merges(files, state, factors, tmp_path):
    (tmp_path / "lcm-lora").mkdir()
    save_file(kohya(factors), tmp_path / "lcm-lora" / "pytorch_lora_weights.safetensors")
    assert convert(files, tmp_path / "model", "--lora", str(tmp_path / "lcm-lora")) == 0
    stored = open_safetensors(tmp_path / "model" / "unet.safetensors")
    down, up = factors[LAYERS[0]]
    kernel = (load(files / UNET)[f"{LAYERS[0]}.weight"] + ALPHA / RANK * up @ down).T
    np.testing.assert_allclose(stored[f"{LAYERS[0]}.kernel"].read(), kernel, rtol=1e-5, atol=1e-6)
    assert read_config(tmp_path / "model").weights["unet"]["origin"] == "lcm/unet with lcm-lora"
