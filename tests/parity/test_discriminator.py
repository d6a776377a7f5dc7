"""The discriminator against PyTorch: BatchNorm in both modes, network, running statistics, gradients, names."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

from interlcm_jax.convert.discriminator import TABLE
from interlcm_jax.convert.rules import places, to_torch
from interlcm_jax.files.safetensors import from_array
from interlcm_jax.models.discriminator import BatchNorm, DiscriminatorConfig, PatchDiscriminator
from interlcm_jax.models.weights import skeleton
from tests.parity.bridge import (
    BLOCK,
    CLOSED_FORM,
    NETWORK,
    assert_close,
    assert_gradient_close,
    assert_gradients_close,
    load,
    nhwc,
    randomize,
)

MINIATURE = DiscriminatorConfig.miniature()
DEEP = DiscriminatorConfig(base_channels=4)  # as deep as the real one, so its width stops growing too
MODES = pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])

score = nnx.jit(lambda discriminator, image, train: discriminator(image, train), static_argnums=2)


class NLayerDiscriminator(nn.Module):
    """The PatchGAN as its authors' PyTorch code builds it: one `Sequential` named `main`."""

    def __init__(self, input_nc: int = 3, ndf: int = 64, n_layers: int = 4):
        super().__init__()
        layers = [nn.Conv2d(input_nc, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        width = ndf
        for n in range(1, n_layers + 1):
            previous, width = width, ndf * min(2**n, 8)
            stride = 1 if n == n_layers else 2
            layers += [
                nn.Conv2d(previous, width, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2, True),
            ]
        self.main = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, stride=1, padding=1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.main(image)


def pytorch_discriminator(config: DiscriminatorConfig) -> NLayerDiscriminator:
    return NLayerDiscriminator(config.in_channels, config.base_channels, config.num_layers)


def jax_discriminator(config: DiscriminatorConfig, state_dict: dict[str, torch.Tensor]) -> PatchDiscriminator:
    return load(nnx.eval_shape(lambda: PatchDiscriminator(config, rngs=nnx.Rngs(0))), state_dict, TABLE)


def twins(config: DiscriminatorConfig) -> tuple[NLayerDiscriminator, PatchDiscriminator]:
    theirs = randomize(pytorch_discriminator(config))
    return theirs, jax_discriminator(config, theirs.state_dict())


def batch_norms() -> tuple[nn.BatchNorm2d, BatchNorm]:
    """Third layer of the miniature: 16 channels."""
    theirs, ours = twins(MINIATURE)
    return theirs.main[3], ours.main[3]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@MODES
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 2, 3), (3, 5, 4)])
def test_batch_norm(train, batch, height, width):
    theirs, ours = batch_norms()
    x = 3 * noise(batch, 16, height, width) + 1
    assert_close(ours(nhwc(x), train), theirs.train(train)(x), BLOCK)


def test_running_statistics_move_as_in_pytorch():
    """Six values a channel: there the unbiased variance, which PyTorch takes, is 1.2 times the biased one."""
    theirs, ours = batch_norms()
    theirs.train()
    for seed in range(3):
        x = 2 * noise(1, 16, 2, 3, seed=seed) + 1
        theirs(x)
        ours(nhwc(x), True)
        assert_close(ours.mean[...], theirs.running_mean, CLOSED_FORM)
        assert_close(ours.var[...], theirs.running_var, CLOSED_FORM)
    ours(nhwc(x), False)
    assert_close(ours.var[...], theirs.running_var, CLOSED_FORM)


def test_batch_norm_epsilon():
    """At a variance of 1e-5, another epsilon than 1e-5 changes the result visibly."""
    theirs, ours = batch_norms()
    x = 3e-3 * noise(2, 16, 4, 4)
    assert_close(ours(nhwc(x), True), theirs.train()(x), CLOSED_FORM)


@MODES
@pytest.mark.parametrize(
    ("config", "batch", "height", "width"),
    [(MINIATURE, 1, 24, 32), (MINIATURE, 3, 21, 27), (DEEP, 2, 64, 80)],
    ids=["miniature", "odd", "deep"],
)
def test_network(train, config, batch, height, width):
    theirs, ours = twins(config)
    image = noise(batch, 3, height, width)
    expected = theirs.train(train)(image)
    assert_close(score(ours, nhwc(image), train), expected, NETWORK)
    for key, tensor in export(ours).items():
        np.testing.assert_allclose(tensor, theirs.state_dict()[key], atol=NETWORK, rtol=0, err_msg=key)


@MODES
def test_gradients(train):
    theirs, ours = twins(MINIATURE)
    image = noise(2, 3, 24, 32).requires_grad_()
    expected = theirs.train(train)(image)
    weights = noise(*expected.shape, seed=1)
    (expected * weights).sum().backward()

    def loss(discriminator, image):
        return jnp.sum(discriminator(image, train) * nhwc(weights))

    grads, image_grad = nnx.jit(nnx.grad(loss, argnums=(0, 1)))(ours, nhwc(image))
    assert_gradient_close(image_grad, image.grad)
    assert_gradients_close(grads, theirs, TABLE)


def export(discriminator: PatchDiscriminator) -> dict[str, torch.Tensor]:
    weights = {
        ".".join(map(str, path)): from_array(np.asarray(leaf.get_value()), Path("test"))
        for path, leaf in nnx.to_flat_state(nnx.state(discriminator))
    }
    return {k: torch.tensor(v.read()) for k, v in to_torch(weights, skeleton(discriminator), TABLE).items()}


def test_export_loads_strictly():
    """A plain dict has no version, and PyTorch asks a module's counters only of dicts that have one."""
    theirs, ours = twins(MINIATURE)
    loaded = pytorch_discriminator(MINIATURE)
    loaded.load_state_dict(export(ours), strict=True)
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_real_size_has_the_keys_and_shapes_of_pytorch():
    with torch.device("meta"):
        state_dict = NLayerDiscriminator().state_dict()
    expected = {k: tuple(v.shape) for k, v in state_dict.items() if not k.endswith("num_batches_tracked")}
    abstract = nnx.eval_shape(lambda: PatchDiscriminator(DiscriminatorConfig(), rngs=nnx.Rngs(0)))
    assert {p.key: p.shape for p in places(skeleton(abstract), TABLE).values()} == expected
