"""The ladder names the module that is wrong, the first and the smallest; and nothing where nothing is."""

import dataclasses
import operator

import diffusers
import jax
import jax.numpy as jnp
import pytest
import torch
from diffusers.models.attention import FeedForward as TorchFeedForward
from diffusers.models.resnet import ResnetBlock2D as TorchResnet

from interlcm_jax.cli.main import main
from interlcm_jax.convert import unet, vae
from interlcm_jax.convert.rules import LINEAR, Rule, Table
from interlcm_jax.models import transformer, vae_blocks
from interlcm_jax.models import unet as unet_module
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.unet_blocks import ResnetBlock2D
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.parity.ladder import Twins, climb
from interlcm_jax.parity.model import check_network, make_twins
from tests.parity import bridge

ONE_BLOCK = dataclasses.replace(
    UNetConfig.miniature(),
    block_out_channels=(16,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
)
FEED_FORWARD = Table(
    (
        Rule(r"(.*)\.proj\.kernel", r"\1.net.0.proj.weight", LINEAR),
        Rule(r"(.*)\.proj\.bias", r"\1.net.0.proj.bias"),
        Rule(r"(.*)\.out\.kernel", r"\1.net.2.weight", LINEAR),
        Rule(r"(.*)\.out\.bias", r"\1.net.2.bias"),
    )
)
TWO_LEVELS = VAEConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def torch_unet():
    return bridge.randomize(diffusers.UNet2DConditionModel.from_config(ONE_BLOCK.to_json()))


@pytest.fixture
def twins(torch_unet):
    network = bridge.load(bridge.abstract(UNet2DCondition, ONE_BLOCK), torch_unet.state_dict(), unet.TABLE)
    trace = {
        "noisy.1": normal(1, 4, 8, 8),
        "timestep.1": torch.tensor([499]),
        "context": normal(1, 5, 48),
        "cond": normal(1, 16),
        "residuals": None,
    }
    with torch.no_grad():
        trace["eps.1"] = torch_unet(
            trace["noisy.1"], trace["timestep.1"], trace["context"], timestep_cond=trace["cond"]
        ).sample
    return make_twins("unet", network, torch_unet, trace)


@pytest.mark.long
def test_what_is_right_passes_down_to_every_layer(twins):
    rungs, fault = climb(twins, levels=None)
    assert fault is None
    assert all(rung.passes for rung in rungs)
    names = [rung.name for rung in rungs]
    # Every layer with weights is called on both sides, in the order of the data.
    assert len(names) == len(twins.names) + 1
    assert names[-1] == "unet"
    assert names.index("unet.conv_in") < names.index("unet.mid_block.resnets.0.conv1") < names.index("unet.conv_out")
    assert all(rung.new.rms < 1e-6 < rung.tolerance for rung in rungs[:-1])


def test_an_epsilon():
    module = bridge.randomize(TorchResnet(in_channels=8, out_channels=8, temb_channels=16, groups=4, eps=1e-5))
    options = {"num_groups": 4, "epsilon": 1e-5}
    network = bridge.load_block(bridge.abstract(ResnetBlock2D, 8, 8, 16, **options), module, unet.TABLE)
    network.norm2.epsilon = 1e-3
    x, temb = normal(1, 8, 8, 8), normal(1, 16)
    names = {name: name for name in ("norm1", "conv1", "time_emb_proj", "norm2", "conv2")}
    arguments = (bridge.nhwc(x), jnp.asarray(temb.numpy()))
    twins = Twins("resnet", network, module, operator.call, arguments, lambda net: net(x, temb), names)
    rungs, fault = climb(twins, levels=1)
    assert fault == "resnet.norm2: a layer of its own"
    assert [rung.name for rung in rungs if not rung.passes] == ["resnet.norm2"]


def test_the_other_gelu(monkeypatch):
    module = bridge.randomize(TorchFeedForward(16, activation_fn="geglu"))
    network = bridge.load_block(bridge.abstract(transformer.FeedForward, 16), module, FEED_FORWARD)
    exact, x = jax.nn.gelu, normal(1, 5, 16)
    monkeypatch.setattr(transformer.jax.nn, "gelu", lambda x, approximate: exact(x, approximate=True))
    names = {"proj": "net.0.proj", "out": "net.2"}
    twins = Twins("ff", network, module, operator.call, (jnp.asarray(x.numpy()),), lambda net: net(x), names)
    _, fault = climb(twins, levels=1)
    assert fault == "ff.out gets another input than in PyTorch, though all before it agrees"


def test_sines_for_cosines(twins, monkeypatch):
    right = unet_module.timestep_embedding
    monkeypatch.setattr(
        unet_module, "timestep_embedding", lambda steps, dim: jnp.roll(right(steps, dim), dim // 2, axis=-1)
    )
    _, fault = climb(twins, levels=1)
    assert fault == "unet.time_embedding gets another input than in PyTorch, though all before it agrees"


def test_padding_on_the_other_side(monkeypatch):
    module = bridge.randomize(diffusers.AutoencoderKL.from_config(TWO_LEVELS.to_json()))
    network = bridge.load(bridge.abstract(AutoencoderKL, TWO_LEVELS), module.state_dict(), vae.TABLE)
    trace = {"lq": normal(1, 3, 16, 16)}
    with torch.no_grad():
        trace["mean"] = module.encode(trace["lq"]).latent_dist.mean
    twins = make_twins("vae.encode", network, module, trace)
    wrong = ((0, 0), (1, 0), (1, 0), (0, 0))
    monkeypatch.setattr(vae_blocks.Downsample, "__call__", lambda self, x: self.conv(jnp.pad(x, wrong)))
    _, fault = climb(twins, levels=1)
    place = "vae.encoder.down_blocks.0.downsamplers.0.conv"
    assert fault == f"{place} gets another input than in PyTorch, though all before it agrees"


def test_a_transposed_kernel_is_found_among_the_weights(twins):
    kernel = twins.network.conv_out.kernel
    kernel.set_value(kernel.get_value().swapaxes(0, 1))
    step = check_network(twins, unet.TABLE, levels=1)
    assert step.fault == "unet: 1 weights differ, the first is conv_out.kernel"
    assert not step.rungs[0].passes
    assert {rung.name for rung in step.rungs if not rung.passes} == {"unet weights", "unet.conv_out", "unet"}


def test_half_precision_is_measured_by_pytorchs(torch_unet, twins):
    network = bridge.load(
        bridge.abstract(UNet2DCondition, ONE_BLOCK, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16),
        torch_unet.state_dict(),
        unet.TABLE,
    )
    rungs, fault = climb(dataclasses.replace(twins, network=network), levels=1)
    assert fault is None
    assert all(rung.own.rms > 1e-3 for rung in rungs)


def test_the_command_takes_a_published_network(torch_unet, tmp_path, capsys):
    torch_unet.save_pretrained(tmp_path / "unet")
    command = ["parity", str(tmp_path / "unet"), "--network", "unet", "--size", "64", "--depth", "1"]
    assert main([*command, "-o", str(tmp_path / "report")]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == "JAX and PyTorch agree."
    assert "JAX and PyTorch agree." in (tmp_path / "report" / "report.html").read_text()
