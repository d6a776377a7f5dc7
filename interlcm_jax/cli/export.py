"""`interlcm export`: a model folder or a training run to PyTorch's formats, or a run to a model folder."""

import argparse
import sys
import tempfile
from pathlib import Path

from interlcm_jax.cli.convert import byte_bar
from interlcm_jax.errors import InterLCMError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("export", help="write a model, or a training run's, in PyTorch's formats")
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="a model folder or the name of one, or a training run's folder (default: that of restore)",
    )
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="the folder to create")
    run_options = parser.add_argument_group("for a training run")
    run_options.add_argument("--model-folder", action="store_true", help="write a model folder, for interlcm restore")
    run_options.add_argument("--step", type=int, metavar="N", help="step of the checkpoint (default: the last)")
    run_options.add_argument("--raw", action="store_true", help="the weights themselves, not their moving average")
    run_options.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the weights of --model-folder (default: float32, as they are trained)",
    )
    run_options.add_argument("--license", default="not stated", help="license of the trained weights, to be recorded")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exports, with a progress bar."""
    if arguments.model is not None and _is_run(arguments.model):
        return _export_run(arguments)
    if arguments.model_folder or arguments.raw or arguments.step is not None or arguments.dtype:
        model = arguments.model or "the default model"
        raise InterLCMError(f"{model}: no training run, which --model-folder, --dtype, --step and --raw are for")
    from interlcm_jax.default_model import describe_model, find_model
    from interlcm_jax.model_folder import read_config

    folder = find_model(arguments.model)
    if arguments.model is None:
        print(describe_model(folder, read_config(folder)), file=sys.stderr)
    return _export(folder, arguments.out)


def _is_run(folder: Path) -> bool:
    # Its home needs the extra `train`, which is asked for only where there is a run.
    return (folder / "checkpoints").is_dir()


def _export_run(arguments: argparse.Namespace) -> int:
    if arguments.dtype and not arguments.model_folder:
        raise InterLCMError("--dtype is for --model-folder; PyTorch's files are in float32")
    try:
        from interlcm_jax.training.release import trained_model
    except ImportError as error:
        raise InterLCMError(f"{arguments.model}: a training run needs pip install '.[train]' ({error})") from error

    model = trained_model(arguments.model, arguments.step, ema=not arguments.raw, license=arguments.license)
    if arguments.model_folder:
        model.save_pretrained(arguments.out, arguments.dtype)
        print(f"{arguments.out}: a model of {model.config.num_network_calls} network calls, ready for interlcm restore")
        return 0
    with tempfile.TemporaryDirectory(prefix="interlcm-export-") as temporary:
        model.save_pretrained(Path(temporary) / "model")
        return _export(Path(temporary) / "model", arguments.out)


def _export(model: Path, out: Path) -> int:
    from interlcm_jax.convert.model import export

    with byte_bar() as bar:
        names = export(model, out, bar.advance)
    print(f"{out}: {', '.join(names)}")
    if "load_vae.py" in names:
        print(
            f"diffusers' AutoencoderKL.from_pretrained doesn't know the widths of this decoder; load it with\n"
            f"  import sys; sys.path.insert(0, {str(out)!r}); from load_vae import load_vae; vae = load_vae()"
        )
    return 0
