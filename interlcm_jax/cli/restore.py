"""`interlcm restore`: low-quality faces to restored ones, file by file."""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from interlcm_jax.errors import InterLCMError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("restore", help="restore faces: files, or folders of files")
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="image files and folders of these")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the results (PNG)")
    parser.add_argument("--model", required=True, metavar="NAME|DIR", help="a model folder, or the hub name of one")
    parser.add_argument(
        "--aligned",
        action="store_true",
        required=True,
        help="the images are aligned faces, cropped as FFHQ is; they are resized to the model's size",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise, the same for every face (default: 0)")
    parser.add_argument("--color-fix", choices=("wavelet", "adain", "none"), help="default: the model's own")
    parser.add_argument("--num-network-calls", type=int, help="default: what the model was trained for")
    parser.add_argument("--batch-size", type=int, default=1, help="faces restored at a time (default: 1)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Restores every input; a bad file costs that file only, is named at the end and makes the exit code 1."""
    from interlcm_jax.arguments import check_calls, check_seed
    from interlcm_jax.pipeline import InterLCM

    if arguments.batch_size < 1:
        raise InterLCMError(f"--batch-size is {arguments.batch_size}, but must be at least 1")
    jobs = plan(arguments.inputs, arguments.out)
    # What can be checked is, before the weights are loaded.
    check_seed(arguments.seed)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise InterLCMError(f"{arguments.out}: the folder can't be made (File exists)")
    model = InterLCM.from_pretrained(arguments.model, arguments.dtype)
    calls = check_calls(arguments.num_network_calls, None, model.config)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InterLCMError(f"{arguments.out}: the folder can't be made ({error.strerror})") from error
    print(
        f"{len(jobs)} images, {calls} network calls at {model.config.image_size} px; "
        "the first batch takes longer: the program is compiled for this machine",
        file=sys.stderr,
    )
    failures: list[str] = []
    with tqdm(total=len(jobs), unit="image") as bar:
        size = min(arguments.batch_size, len(jobs))
        for batch in _batched(jobs, size):
            _restore_batch(model, batch, size, arguments, failures)
            bar.update(len(batch))
    print(f"restored {len(jobs) - len(failures)} of {len(jobs)} images into {arguments.out}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def plan(inputs: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Pairs of input file and output file; a folder's inner folders are kept, and no two outputs share a name.

    Raises:
        InterLCMError: an input folder holds no images, or a result would replace an input.
    """
    from interlcm_jax.imaging.io import SUFFIXES

    sources: list[tuple[Path, Path]] = []
    for path in inputs:
        if not path.is_dir():
            sources.append((path, Path(path.name)))
            continue
        found = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
        if not found:
            raise InterLCMError(f"{path}: no images in this folder ({', '.join(SUFFIXES)})")
        sources += [(f, f.relative_to(path)) for f in found]
    taken: set[Path] = set()
    jobs = []
    for source, name in sources:
        # a.jpg and a.png, or the same name from two folders: the later ones get a number.
        targets = itertools.chain([name.stem], (f"{name.stem}_{i}" for i in itertools.count(2)))
        target = next(t for t in (out / name.parent / f"{stem}.png" for stem in targets) if t not in taken)
        taken.add(target)
        jobs.append((source, target))
    originals = {source.resolve() for source, _ in jobs}
    if replaced := [str(target) for _, target in jobs if target.resolve() in originals]:
        raise InterLCMError(f"results would replace these inputs: {', '.join(replaced)}; choose another folder")
    return jobs


def _batched(jobs: Sequence[tuple[Path, Path]], size: int) -> Iterator[Sequence[tuple[Path, Path]]]:
    return (jobs[i : i + size] for i in range(0, len(jobs), size))


def _restore_batch(
    model: object, batch: Sequence[tuple[Path, Path]], size: int, arguments: argparse.Namespace, failures: list[str]
) -> None:
    """Restores and writes one batch, padded to the size the program is compiled for."""
    from interlcm_jax.imaging.io import fit_square, read_image, write_image

    faces, targets = [], []
    for source, target in batch:
        try:
            faces.append(fit_square(read_image(source), model.config.image_size))
            targets.append(target)
        except InterLCMError as error:
            failures.append(str(error))
    if not faces:
        return
    padding = [np.zeros_like(faces[0])] * (size - len(faces))
    restored = model.restore(
        np.stack(faces + padding),
        seed=arguments.seed,
        color_fix=arguments.color_fix,
        num_network_calls=arguments.num_network_calls,
    )
    for target, pixels in zip(targets, np.asarray(restored), strict=False):
        try:
            write_image(target, pixels)
        except InterLCMError as error:
            failures.append(str(error))
