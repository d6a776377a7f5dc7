"""InterLCM in PyTorch with random weights, and the release's files of it."""

import functools
import json
from pathlib import Path

import torch

from interlcm_jax.model_folder import NETWORKS, ModelConfig
from interlcm_jax.parity.reference import Reference, build
from tests.parity.bridge import randomize

SEEDS = {"unet": 1, "vae": 2, "clip_vision": 3, "visual_encoder": 4, "spatial_encoder": 5}


def random_network(name: str, config: ModelConfig) -> torch.nn.Module:
    """One network, with random weights that keep every activation near unit scale."""
    return randomize(build(config, name), seed=SEEDS[name])


unet, vae, clip_vision, visual_encoder, spatial_encoder = (functools.partial(random_network, name) for name in SEEDS)


class Release(Reference):
    """The PyTorch model, that the tests make up and save."""

    @classmethod
    def random(cls, config: ModelConfig) -> "Release":
        """Random weights in every network."""
        return cls(config, **{name: random_network(name, config) for name in NETWORKS})

    def save(self, folder: Path, *, safe: bool = True) -> dict[str, str]:
        """Writes the release's files; returns the arguments of `convert` by name."""
        lcm = folder / "lcm"
        self.unet.save_pretrained(lcm / "unet", safe_serialization=safe)
        self.vae.save_pretrained(lcm / "vae", safe_serialization=safe)
        (lcm / "scheduler").mkdir()
        (lcm / "scheduler" / "scheduler_config.json").write_text(json.dumps(self.config.schedule.to_json()))
        self.clip_vision.save_pretrained(folder / "clip")
        for name, network in (("visual_encoder", self.visual_encoder), ("spatial_encoder", self.spatial_encoder)):
            wrong = {key: torch.zeros(1) for key in network.state_dict()}
            torch.save({"params": wrong, "params_ema": network.state_dict()}, folder / f"{name}.pth")
        return {
            "lcm": str(lcm),
            "clip": str(folder / "clip"),
            "visual_encoder": folder / "visual_encoder.pth",
            "spatial_encoder": folder / "spatial_encoder.pth",
        }
