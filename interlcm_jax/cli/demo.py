"""`interlcm demo`: a web page that restores the photos that are dropped on it."""

import argparse
import sys


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("demo", help="serve a web page that restores photos")
    add = parser.add_argument
    add("--model", metavar="NAME|DIR", help="a model folder or the name of one (default: that of restore)")
    add("--background-upsampler", metavar="NAME|DIR|FILE", help="let visitors enlarge photos by this network")
    add("--dtype", choices=("float32", "bfloat16", "auto"), default="float32", help="as for restore")
    add("--batch-size", type=int, default=1, metavar="N", help="faces at a time on each device (default: 1)")
    add("--host", default="127.0.0.1", help="address to serve; 0.0.0.0 is all of this machine's (default: 127.0.0.1)")
    add("--port", type=int, default=7860, help="default: 7860")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C; everything that can be checked is checked before the weights are loaded."""
    from interlcm_jax.arguments import check_batch_size
    from interlcm_jax.default_model import describe_model, find_model
    from interlcm_jax.demo.batches import SharedBatches
    from interlcm_jax.demo.restorer import Restorer
    from interlcm_jax.demo.server import check_installed, open_port, serve
    from interlcm_jax.demo.storage import temporary_storage
    from interlcm_jax.faces.load import load_detector
    from interlcm_jax.faces.parsenet import load_parsenet
    from interlcm_jax.photos.upsample import load_upsampler
    from interlcm_jax.pipeline import InterLCM
    from interlcm_jax.runtime import compile_cache
    from interlcm_jax.runtime.batching import replicated_sharding
    from interlcm_jax.runtime.platform import fastest_dtype

    check_installed()
    check_batch_size(arguments.batch_size)
    folder = find_model(arguments.model)
    with open_port(arguments.host, arguments.port) as listening, temporary_storage() as storage:
        compile_cache.enable()
        dtype = fastest_dtype() if arguments.dtype == "auto" else arguments.dtype
        model = InterLCM.from_pretrained(folder, dtype, sharding=replicated_sharding())
        upsampler = None
        if arguments.background_upsampler is not None:
            upsampler = load_upsampler(arguments.background_upsampler, dtype, sharding=replicated_sharding())
        print(describe_model(folder, model.config), file=sys.stderr)
        about = describe_model(folder, model.config, place=False)
        with SharedBatches(model, arguments.batch_size) as batches:
            detector, parser = load_detector(folder), load_parsenet(folder)
            restorer = Restorer(model.config, batches, detector, storage, parser, upsampler)
            host, port = listening.getsockname()[:2]
            print(
                f"the page is at http://{f'[{host}]' if ':' in host else host}:{port}/ until Ctrl-C. With the first "
                "photo the program is compiled for this machine, which takes a while",
                file=sys.stderr,
            )
            serve(restorer, about, listening)
    return 0
