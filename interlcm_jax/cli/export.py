"""`interlcm export`: a model folder back to PyTorch's formats."""

import argparse
from pathlib import Path

from interlcm_jax.cli.convert import byte_bar


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("export", help="write a model folder back in PyTorch's formats")
    parser.add_argument("model", type=Path, metavar="DIR", help="the model folder")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="the folder to make")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exports, with a progress bar."""
    from interlcm_jax.convert.model import export

    with byte_bar() as bar:
        names = export(arguments.model, arguments.out, bar.advance)
    print(f"{arguments.out}: {', '.join(names)}")
    return 0
