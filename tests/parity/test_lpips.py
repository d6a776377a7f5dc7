"""Against the distance of PyTorch's `lpips` package, version 0.1 with VGG16, written out here."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import traverse_util
from torch import nn

from interlcm_jax.convert import lpips as convert
from interlcm_jax.convert.rules import to_jax
from interlcm_jax.convert.writers import write_torch
from interlcm_jax.errors import WeightsError
from interlcm_jax.files.safetensors import from_array, write_safetensors
from interlcm_jax.models.lpips import lpips, skeleton
from tests.parity.bridge import GRADIENT, NETWORK, assert_close, assert_gradient_close, nhwc

# VGG16 has its real widths: it runs for longer than it compiles.
pytestmark = pytest.mark.optimized

TAPS = (4, 9, 16, 23, 30)  # just after relu1_2, relu2_2, relu3_3, relu4_3, relu5_3


class TorchLPIPS(nn.Module):
    """Keys as in torchvision's `vgg16` and in the file of heads that the package ships."""

    def __init__(self):
        super().__init__()
        layers, width = [], 3
        for block, (count, out) in enumerate(zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True)):
            layers += [nn.MaxPool2d(2, 2)] if block else []
            for _ in range(count):
                layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU()]
                width = out
        self.features = nn.Sequential(*layers)
        for i, channels in enumerate((64, 128, 256, 512, 512)):
            head = nn.Module()
            head.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))
            self.add_module(f"lin{i}", head)

    def taps(self, x):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x, previous = (x - shift[:, None, None]) / scale[:, None, None], 0
        for tap in TAPS:
            x, previous = self.features[previous:tap](x), tap
            yield x / (torch.sqrt(torch.sum(x**2, dim=1, keepdim=True)) + 1e-10)

    def forward(self, x, y):
        pairs = zip(self.taps(x), self.taps(y), strict=True)
        heads = (getattr(self, f"lin{i}").model for i in range(5))
        return sum(head((a - b) ** 2).mean([2, 3]) for head, (a, b) in zip(heads, pairs, strict=True))[:, 0]


def imagenet(x):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((x + 1) / 2 - mean[:, None, None]) / std[:, None, None]


PREPARE = {"standard": lambda x: x, "reference": imagenet}
DISTANCE = jax.jit(lpips, static_argnums=3)
GRADIENTS = jax.jit(jax.grad(lambda *args: lpips(*args).sum(), (0, 1, 2)), static_argnums=3)


def random_twin() -> TorchLPIPS:
    """Weights that keep the features of every layer at one scale: LPIPS divides by their length."""
    torch.manual_seed(0)
    network = TorchLPIPS().eval()
    for name, weight in network.named_parameters():
        with torch.no_grad():
            if name.startswith("lin"):
                weight.copy_(2 * torch.rand(weight.shape))  # positive, as the published heads are
            elif weight.ndim == 1:
                weight.copy_(0.1 * torch.randn(weight.shape))
            else:
                weight.copy_(torch.randn(weight.shape) * (2 / weight[0].numel()) ** 0.5)
    return network


@pytest.fixture(scope="module")
def twin():
    return random_twin()


def converted(tensors):
    source = {key: from_array(tensor.detach().numpy(), "test") for key, tensor in tensors.items()}
    weights = to_jax(source, skeleton(), convert.TABLE, "test")
    return traverse_util.unflatten_dict({p: jnp.asarray(w.read()) for p, w in weights.items()}, sep=".")


@pytest.fixture(scope="module")
def params(twin):
    return converted(twin.state_dict())


def images(batch=3, height=32, width=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, 3, height, width, generator=generator) * 2 - 1
    noise = torch.randn(x.shape, generator=generator) * torch.linspace(0.05, 0.5, batch)[:, None, None, None]
    return x, x + noise


@pytest.mark.parametrize("normalization", ["standard", "reference"])
@pytest.mark.parametrize("shape", [(3, 32, 48), (1, 37, 51)])
def test_distance(twin, params, shape, normalization):
    x, y = images(*shape)
    prepare = PREPARE[normalization]
    # Strangers beside near images, so that the distances have a spread to compare.
    x, y = torch.cat([x, x]), torch.cat([y, images(*shape, seed=1)[0] ** 3])
    expected = twin(prepare(x), prepare(y))
    actual = DISTANCE(params, nhwc(x), nhwc(y), normalization)
    assert_close(actual, expected, NETWORK)


def test_the_normalizations_differ(params):
    x, y = images()
    standard, reference = (DISTANCE(params, nhwc(x), nhwc(y), kind) for kind in ("standard", "reference"))
    assert np.abs(standard - reference).max() > 100 * NETWORK


def assert_same_gradients(params, twin, x, y, normalization):
    x.requires_grad_(), y.requires_grad_()
    prepare = PREPARE[normalization]
    twin.zero_grad()
    twin(prepare(x), prepare(y)).sum().backward()
    by_params, by_x, by_y = GRADIENTS(params, nhwc(x), nhwc(y), normalization)
    assert_gradient_close(by_x, x.grad)
    assert_gradient_close(by_y, y.grad)
    expected = traverse_util.flatten_dict(converted({k: p.grad for k, p in twin.named_parameters()}), sep=".")
    for path, gradient in traverse_util.flatten_dict(by_params, sep=".").items():
        scale = np.abs(expected[path]).max()
        error = np.abs(gradient - expected[path]).max()
        assert error <= GRADIENT * scale, f"{path} {error:.2e} of {scale:.2e}"


# The gradient jumps where a ReLU or a pooling switches, which rounding decides on either side: small images have few
# places that near to a switch.
@pytest.mark.parametrize("normalization", ["standard", "reference"])
def test_gradients_of_images_and_weights(twin, params, normalization):
    assert_same_gradients(params, twin, *images(2, 16, 24), normalization)


def test_gradients_where_all_features_of_a_layer_vanish(twin):
    # The length of a zero feature has no derivative, but the ReLU before it lets none through.
    twin = copy.deepcopy(twin)
    with torch.no_grad():
        twin.features[28].bias.fill_(-100.0)
    x, y = images(2, 16, 24)
    assert all((features == 0).all() for *_, features in (twin.taps(x), twin.taps(y)))
    assert_same_gradients(converted(twin.state_dict()), twin, x, y, "standard")


def split(state):
    heads = {key: tensor for key, tensor in state.items() if key.startswith("lin")}
    return {key: tensor for key, tensor in state.items() if key not in heads}, heads


@pytest.mark.parametrize("listed", [False, True])
def test_files_of_torchvision_and_lpips(tmp_path, twin, params, listed):
    vgg, heads = split(twin.state_dict())
    vgg["classifier.0.weight"] = torch.ones(2, 2)
    heads = {key.replace("lin", "lins.") if listed else key: tensor for key, tensor in heads.items()}
    torch.save(vgg, tmp_path / "vgg16.pth")
    torch.save(heads, tmp_path / "vgg.pth", _use_new_zipfile_serialization=False)
    write_safetensors(tmp_path / convert.FILE, convert.from_pytorch(tmp_path / "vgg16.pth", tmp_path / "vgg.pth"))
    jax.tree.map(np.testing.assert_array_equal, convert.load(tmp_path / convert.FILE), params)


def test_files_that_are_others(tmp_path, twin):
    vgg, _ = split(twin.state_dict())
    torch.save(vgg, tmp_path / "vgg16.pth")
    with pytest.raises(WeightsError, match=r"5 missing keys: lin0\.model\.1\.weight, lin1"):
        convert.from_pytorch(tmp_path / "vgg16.pth", tmp_path / "vgg16.pth")


def test_back_to_pytorch(tmp_path, twin, params):
    for name, weights in zip(("vgg", "heads"), convert.to_pytorch(params), strict=True):
        write_torch(tmp_path / name, weights, wrappers=())
    state = torch.load(tmp_path / "vgg") | torch.load(tmp_path / "heads")
    assert state.keys() == twin.state_dict().keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in twin.state_dict().items())
