"""`interlcm compile`: exports a restoration that runs with JAX alone."""

import argparse
import sys
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("compile", help="export a restoration that runs with JAX alone")
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a model folder or the name of one (default: that of restore)")
    add("-o", "--out", required=True, type=Path, metavar="OUT", help="the folder to create")
    add("--batch-size", type=int, default=1, metavar="N", help="faces in each call of the program (default: 1)")
    add(
        "--platforms",
        type=lambda names: tuple(filter(None, names.split(","))),
        default="cpu,cuda,tpu",
        metavar="NAMES",
        help="where it runs: cpu, cuda, tpu; attention is faster for tpu alone (default: all three)",
    )
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    add("--num-network-calls", type=int, metavar="N", help="network calls a face (default: the model's)")
    add("--color-fix", choices=("wavelet", "adain", "none"), help="color correction (default: the model's)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compiles; everything that can be checked is checked before the weights are loaded."""
    from interlcm_jax.arguments import check_batch_size
    from interlcm_jax.default_model import describe_model, find_model
    from interlcm_jax.files.atomic import check_absent
    from interlcm_jax.pipeline import InterLCM
    from interlcm_jax.stablehlo_export import EXAMPLE, PROGRAM, WEIGHTS, check_platforms, compile_model

    check_batch_size(arguments.batch_size)
    platforms = check_platforms(arguments.platforms)
    check_absent(arguments.out, PROGRAM)
    folder = find_model(arguments.model)
    model = InterLCM.from_pretrained(folder, arguments.dtype)
    if arguments.model is None:
        print(describe_model(folder, model.config), file=sys.stderr)
    print(
        f"lowering {arguments.batch_size} faces at {model.config.image_size} px for {', '.join(platforms)}, then "
        "writing the weights, which takes a while",
        file=sys.stderr,
    )
    compile_model(
        model,
        arguments.out,
        batch_size=arguments.batch_size,
        platforms=platforms,
        num_network_calls=arguments.num_network_calls,
        color_fix=arguments.color_fix,
    )
    sizes = ", ".join(f"{name} ({_size(arguments.out / name)})" for name in (PROGRAM, WEIGHTS))
    print(f"{arguments.out}: {sizes} and {EXAMPLE}, which restores: python {arguments.out / EXAMPLE} IN OUT")
    return 0


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
