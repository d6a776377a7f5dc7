"""`interlcm download`: downloads the released weights, as the default model."""

import argparse
import sys
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from interlcm_jax.cli.convert import byte_bar
from interlcm_jax.errors import InterLCMError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("download", help="download the released weights (5 GB) as the default model")
    add = parser.add_argument
    add("--task", default="restoration", help="restoration (default), colorization or inpainting")
    add("--num-network-calls", type=int, metavar="N", help="for restoration 3 (default) or 1; other tasks have 1")
    add("--upsampler", metavar="NAME", help="this upsampler instead: x2plus, x4plus (67 MB) or general-x4v3 (5 MB)")
    add("-o", "--out", type=Path, metavar="DIR", help="the folder to create; it isn't found by its name then")
    add("--release", metavar="URL", help="a mirror of the .pth files, InterLCM's and facexlib's, or Real-ESRGAN's")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Downloads and converts, with progress bars."""
    return _download_upsampler(arguments) if arguments.upsampler else _download_model(arguments)


def _download_upsampler(arguments: argparse.Namespace) -> int:
    from interlcm_jax.convert.released import UPSAMPLERS_RELEASE, download_upsampler

    if arguments.num_network_calls is not None or arguments.task != "restoration":
        raise InterLCMError("--upsampler goes without --task and --num-network-calls: it is no model")
    print("Real-ESRGAN's weights: BSD-3-Clause, github.com/xinntao/Real-ESRGAN.", file=sys.stderr)
    with logging_redirect_tqdm(), _Bar() as bar:
        folder = download_upsampler(
            arguments.upsampler,
            arguments.out,
            release=arguments.release or UPSAMPLERS_RELEASE,
            fetching=bar.fetch,
        )
    name = arguments.out or arguments.upsampler
    print(f"{folder}: ready for interlcm restore --background-upsampler {name}")
    return 0


def _download_model(arguments: argparse.Namespace) -> int:
    from interlcm_jax.convert.released import CLIP, LCM, LICENSE, RELEASE, download, downloads_folder

    print(
        f"InterLCM's weights: {LICENSE}. {LCM} and {CLIP}, from the Hugging Face hub, and facexlib's RetinaFace and "
        "ParseNet have licenses of their own. This program: Apache-2.0.\n"
        "An interrupted download goes on where it stopped: give the same command again.",
        file=sys.stderr,
    )
    with logging_redirect_tqdm(), _Bar() as bar:
        folder = download(
            arguments.task,
            arguments.num_network_calls,
            arguments.out,
            release=arguments.release or RELEASE,
            fetching=bar.fetch,
            converting=bar.advance,
        )
        lacking = _faces(folder, arguments.release, bar)
    if arguments.out:
        print(f"{folder}: ready for interlcm restore --model {folder}")
    else:
        option = "" if arguments.task == "restoration" else f" --task {arguments.task}"
        print(f"{folder}: now the default model, for interlcm restore{option}")
    print(f"{downloads_folder()} keeps the files it was made of, for other tasks; it may be deleted", file=sys.stderr)
    if lacking:
        again = "" if arguments.out else ", or give the same command again"
        print(f"interlcm: {lacking}{again}", file=sys.stderr)
    return 1 if lacking else 0


def _faces(folder: Path, release: str | None, bar: "_Bar") -> InterLCMError | None:
    """Adds what the release finds faces with; what went wrong, which costs the model nothing."""
    from interlcm_jax.convert.released import download_faces

    try:
        download_faces(folder, release=release, fetching=bar.fetch)
    except InterLCMError as error:
        return error
    return None


class _Bar(byte_bar):
    """A bar of bytes that names the current file, later the current network, with rate and time left."""

    _file = ""

    def fetch(self, label: str, count: int, total: int | None) -> None:
        """`count` of a file's `total` bytes are there; those that an earlier run left don't count into the rate."""
        if label != self._file or count < self.n:
            self._begin(label, count, total)
        self.update(count - self.n)

    def advance(self, network: str, count: int, total: int) -> None:
        """As for a conversion alone."""
        if self._file:
            self._begin("", 0, total)
        super().advance(network, count, total)

    def _begin(self, label: str, count: int, total: int | None) -> None:
        self._file = label
        self.set_description(label, refresh=False)
        self.reset(total)
        self.initial = self.n = count
