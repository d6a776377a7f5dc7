"""InterLCM's training step in PyTorch, as the release trains: what ours is compared with, and timed beside."""

import copy
import dataclasses

import numpy as np
import torch
from torch import Tensor

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.training.config import OptimizerConfig, StartConfig, TrainConfig
from interlcm_jax.training.losses import LossConfig
from interlcm_jax.training.stage import ENCODERS
from interlcm_jax.training.stages import Restoration
from tests.parity.bridge import randomize
from tests.parity.release import Release
from tests.parity.test_discriminator import NLayerDiscriminator
from tests.parity.test_lpips import TorchLPIPS, imagenet, random_twin

RESTORED = 1e-4  # absolute error of the restored images, as in test_restoration.py
STEPS, BATCH = 3, 2
# More than one channel a group: else biases before a norm have no gradient either.
MODEL = ModelConfig.miniature()
MODEL = dataclasses.replace(MODEL, visual_encoder=dataclasses.replace(MODEL.visual_encoder, norm_num_groups=8))
CONFIG = TrainConfig(
    stage=Restoration(
        losses=LossConfig(adversarial_from=0, lpips_weights="random", discriminator=DiscriminatorConfig.miniature())
    ),
    start=StartConfig(random="miniature"),
    # The release's rates, on a schedule short enough to bend within three steps.
    optimizer=OptimizerConfig(decay_steps=4, ema=0.9),
    dtype="float32",
    remat=False,
    steps=STEPS,
    batch_size=BATCH,
)


@dataclasses.dataclass
class Twin:
    """The training loop of the release, in PyTorch."""

    release: Release
    discriminator: NLayerDiscriminator
    lpips: TorchLPIPS

    def __post_init__(self):
        self.trained = {name: getattr(self.release, name) for name in ENCODERS}
        self.params = [p for network in self.trained.values() for p in network.parameters()]
        for network in (self.release.unet, self.release.vae, self.release.clip_vision, self.lpips):
            network.requires_grad_(False)
        self.ema = {name: copy.deepcopy(network) for name, network in self.trained.items()}
        options = {"lr": CONFIG.optimizer.learning_rate, "betas": (0.9, 0.99)}
        self.optimizers = [torch.optim.Adam(p, **options) for p in (self.params, self.discriminator.parameters())]
        self.discriminator.train()

    def step(self, number: int, lq: Tensor, hq: Tensor, noise: Tensor, ours: Tensor) -> dict[str, float]:
        """One iteration; gradients stay in `.grad`.

        The losses have a kink (ReLU, max pooling, L1) at each of a million units. At images that differ by rounding, a
        few units fall on different sides, and each moves the gradient by up to a hundredth. So the gradients are those
        at `ours`, the images that JAX restored; the losses, which are told, those of PyTorch's own.
        """
        restored = self.release.trace(lq, noise)["decoded"]
        assert (restored - ours).abs().max() <= RESTORED
        with torch.no_grad():
            told = self.losses(restored, hq)
        self.optimize(number, ours + (restored - restored.detach()), hq)
        return {name: value.item() for name, value in told.items()}

    def optimize(self, number: int, restored: Tensor, hq: Tensor) -> None:
        """Losses, gradients, both Adams and the averages, from the restored images on."""
        rate = CONFIG.optimizer
        cosine = 0.5 * (1 + np.cos(np.pi * min(number / rate.decay_steps, 1)))
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            span = rate.learning_rate - rate.final_learning_rate
            optimizer.param_groups[0]["lr"] = rate.final_learning_rate + cosine * span
        losses = self.losses(restored, hq)
        judged = list(self.discriminator.parameters())
        own = torch.autograd.grad(losses["loss/discriminator"], judged, retain_graph=True)
        losses["loss"].backward()
        for parameter, grad in zip(judged, own, strict=True):
            parameter.grad = grad
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            for name, network in self.trained.items():
                for average, new in zip(self.ema[name].parameters(), network.parameters(), strict=True):
                    average.mul_(rate.ema).add_(new, alpha=1 - rate.ema)

    def losses(self, restored: Tensor, hq: Tensor) -> dict[str, Tensor]:
        """The release's losses, and the discriminator's beside them."""
        weights = CONFIG.stage.losses
        told = {"loss/l1": (restored - hq).abs().mean()}
        told["loss/lpips"] = self.lpips(imagenet(restored), imagenet(hq)).mean()
        fake, real = self.discriminator(restored), self.discriminator(hq)
        told["loss/adversarial"] = -fake.mean()
        told["loss/discriminator"] = torch.relu(1 + fake).mean() + torch.relu(1 - real).mean()
        names = ("l1", "lpips", "adversarial")
        return {**told, "loss": sum(getattr(weights, name) * told[f"loss/{name}"] for name in names)}


def make_twin() -> Twin:
    """Random weights, of the miniature's sizes."""
    config = DiscriminatorConfig.miniature()
    judge = NLayerDiscriminator(ndf=config.base_channels, n_layers=config.num_layers)
    return Twin(Release.random(MODEL), randomize(judge), random_twin())
