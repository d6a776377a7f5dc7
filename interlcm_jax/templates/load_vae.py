"""Loads the autoencoder beside this file into diffusers' class, whose `from_pretrained` knows no decoder widths."""

from pathlib import Path

from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import Decoder
from safetensors.torch import load_file

FOLDER = Path(__file__).parent / "lcm" / "vae"


def load_vae() -> AutoencoderKL:
    """The autoencoder, with the widths and weights of its own decoder."""
    config = AutoencoderKL.load_config(FOLDER)
    widths = config.pop("decoder_block_out_channels")
    vae = AutoencoderKL.from_config(config)
    vae.decoder = Decoder(
        in_channels=config["latent_channels"],
        out_channels=config["out_channels"],
        up_block_types=config["up_block_types"],
        block_out_channels=widths,
        layers_per_block=config["layers_per_block"],
        norm_num_groups=config["norm_num_groups"],
    )
    vae.load_state_dict(load_file(FOLDER / "diffusion_pytorch_model.safetensors"), strict=True)
    return vae.eval()
