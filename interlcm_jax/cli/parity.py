"""`interlcm parity`: proves on the user's machine that a model's networks equal PyTorch's."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlcm_jax.errors import InterLCMError

if TYPE_CHECKING:
    from interlcm_jax.parity.model import Step


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("parity", help="compare a model with PyTorch, module by module")
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a model folder or the name of one (default: that of restore)")
    add("--image", type=Path, metavar="FACE", help="an aligned face (default: a made-up image)")
    add("--reference", type=Path, metavar="DIR", help="PyTorch's files, laid out as interlcm export does")
    add(
        "--network",
        choices=("unet", "spatial_encoder", "vae", "clip_vision"),
        help="MODEL is the folder of one published network, in diffusers' or transformers' format",
    )
    add("--size", type=int, default=512, metavar="PX", help="image size for --network (default: 512)")
    add("--calls", type=int, metavar="N", help="network calls (default: the model's)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of JAX (default: float32)")
    add(
        "--precision",
        choices=("highest", "default"),
        default="highest",
        help="of JAX's matrix products; a GPU's or TPU's default is lower (default: highest)",
    )
    add("--depth", type=int, default=2, metavar="N", help="1: blocks; 2: what they consist of; 0: every layer")
    add("--tolerance", type=float, default=3e-5, metavar="X", help="error that a module may add (default: 3e-5)")
    add("--seed", type=int, default=0, metavar="N", help="of noise and made-up inputs (default: 0)")
    add("-o", "--out", type=Path, metavar="REPORT", help="folder to create for report.json and report.html")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compares, and prints each line as it comes.

    Returns:
        0 if all agrees, else 1.
    """
    from interlcm_jax.files.atomic import check_absent

    if arguments.depth < 0 or not arguments.tolerance > 0:
        raise InterLCMError("--depth must be at least 0, and --tolerance more than 0")
    if arguments.out is not None:
        check_absent(arguments.out)
    try:
        from interlcm_jax.parity import report
    except ImportError as error:
        raise InterLCMError(f"parity needs PyTorch's side: pip install 'interlcm-jax[parity]' ({error})") from error

    # What it says of dtypes is about another way of loading.
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    settings = {key: value for key, value in vars(arguments).items() if key not in ("run", "command", "out")}
    settings = {key: str(value) for key, value in settings.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="interlcm-parity-") as temporary:
        steps = []
        for step in _compare(arguments, settings, Path(temporary) / "pytorch"):
            steps.append(step)
            print(*([] if steps[1:] else [report.HEAD]), *map(report.line, step.rungs), sep="\n", flush=True)
    found = report.Report(settings, steps)
    print(found.summary)
    if arguments.out is not None:
        found.save(arguments.out)
        print(f"{arguments.out}: report.html, report.json")
    return 1 if found.fault else 0


def _compare(arguments: argparse.Namespace, settings: dict[str, str], temporary: Path) -> "Iterator[Step]":
    """The comparisons that are asked for; completes the report's `settings`."""
    options = {"levels": arguments.depth or None, "tolerance": arguments.tolerance, "precision": arguments.precision}
    if arguments.network is None:
        return _compare_model(arguments, settings, temporary, options)
    from interlcm_jax.parity.network import check_published

    if arguments.model is None or arguments.reference or arguments.image or arguments.calls:
        raise InterLCMError("--network takes a published network's folder, and no --reference, --image or --calls")
    options |= {"size": arguments.size, "seed": arguments.seed, "dtype": arguments.dtype}
    return check_published(arguments.network, arguments.model, **options)


def _compare_model(
    arguments: argparse.Namespace, settings: dict[str, str], temporary: Path, options: dict[str, Any]
) -> "Iterator[Step]":
    from interlcm_jax.convert.model import export
    from interlcm_jax.default_model import describe_model, find_model
    from interlcm_jax.model_folder import NETWORKS, read_config, weights_file
    from interlcm_jax.parity.inputs import draw_noise, read_face
    from interlcm_jax.parity.model import Request, check_model
    from interlcm_jax.parity.report import hashes

    folder = find_model(arguments.model)
    config = read_config(folder)
    print(describe_model(folder, config), file=sys.stderr)
    settings |= {f"SHA-256 of {name}": digest for name, digest in hashes(weights_file(folder, n) for n in NETWORKS)}
    lq = read_face(arguments.image, config, arguments.seed)
    noise = draw_noise(config, lq.shape, arguments.calls or config.num_network_calls, arguments.seed)
    if arguments.reference is None:
        print("writing the model in PyTorch's formats, from which PyTorch's side is built", file=sys.stderr)
        export(folder, temporary)
    request = Request(folder, arguments.reference or temporary, lq, noise, arguments.dtype, **options)
    return check_model(request)
