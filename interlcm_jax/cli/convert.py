"""`interlcm convert`: makes a model folder from PyTorch weights."""

import argparse
import dataclasses
import sys
from pathlib import Path

from tqdm import tqdm

from interlcm_jax.cli.add import RETINAFACE


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("convert", help="make a model folder from PyTorch weights")
    parser.add_argument(
        "--lcm",
        required=True,
        metavar="DIR|FILE|HUB",
        help="diffusers folder with unet/, vae/ and scheduler/ (SimianLuo/LCM_Dreamshaper_v7), or a Stable Diffusion "
        "1.5 checkpoint in one .safetensors or .ckpt file",
    )
    parser.add_argument(
        "--clip",
        required=True,
        metavar="DIR|FILE|HUB",
        help="CLIP in transformers' or OpenAI's layout (openai/clip-vit-base-patch16)",
    )
    parser.add_argument("--visual-encoder", required=True, type=Path, metavar="FILE", help="visual_encoder_*.pth")
    parser.add_argument("--spatial-encoder", required=True, type=Path, metavar="FILE", help="spatial_encoder_*.pth")
    parser.add_argument(
        "--lora",
        metavar="FILE|DIR|HUB",
        help="LoRA to merge into the UNet; latent-consistency/lcm-lora-sdv1-5 makes an LCM of Stable Diffusion 1.5",
    )
    parser.add_argument("--vgg", type=Path, metavar="FILE", help="torchvision's vgg16 .pth, for LPIPS in training")
    parser.add_argument("--lpips-heads", type=Path, metavar="FILE", help="the lpips package's weights/v0.1/vgg.pth")
    parser.add_argument("--retinaface", type=Path, metavar="FILE", help=f"{RETINAFACE}, to find faces")
    parser.add_argument("--parsenet", type=Path, metavar="FILE", help="parsing_parsenet.pth, to paste faces neatly")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="the model folder to create")
    settings = parser.add_argument_group(
        "settings", "where the files are those of interlcm export, its interlcm.json gives the defaults"
    )
    settings.add_argument(
        "--num-network-calls", type=int, help="what the .pth files were trained for: 3 (default) or 1"
    )
    settings.add_argument("--task", help="restoration (default), colorization or inpainting")
    settings.add_argument("--image-size", type=int, help="size of the faces in training (default: 512)")
    settings.add_argument("--license", help="license of the .pth files, to be recorded (default: not stated)")
    parser.add_argument("--variant", help="variant of the LCM's files to take, such as fp16")
    parser.add_argument("--allow-nan", action="store_true", help="accept weights with NaN or infinity in them")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Converts, with a progress bar."""
    from interlcm_jax.convert.model import Sources, convert

    sources = Sources(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Sources)})
    if sources.settings_file:
        print(f"{sources.settings_file}: its settings are taken where no option says otherwise", file=sys.stderr)
    with byte_bar() as bar:
        config = convert(
            sources,
            arguments.out,
            num_network_calls=arguments.num_network_calls,
            task=arguments.task,
            image_size=arguments.image_size,
            license=arguments.license,
            allow_nan=arguments.allow_nan,
            progress=bar.advance,
        )
    print(f"{arguments.out}: a model of {config.num_network_calls} network calls, ready for interlcm restore")
    return 0


class byte_bar(tqdm):  # noqa: N801 - it is used like tqdm
    """A progress bar of bytes that names the current network."""

    def __init__(self):
        super().__init__(unit="B", unit_scale=True, unit_divisor=1024, desc="reading")

    def advance(self, network: str, count: int, total: int) -> None:
        """Reports `count` more bytes of a network, of `total` for all."""
        self.total = total
        self.set_description(network, refresh=False)
        self.update(count)
