"""Comparison restored faces by a named protocol, as papers on blind face restoration do.

    python evaluate.py --restored DIR --reference DIR [--lq DIR]    folders matched by name
    python evaluate.py --restored DIR                               one folder, metrics without a reference
    python evaluate.py --model DIR --data DIR -o OUT                restores a test set, then scores it
    python evaluate.py --compare A B C --reference DIR              methods side by side

The table goes to the screen; -o OUT takes scores.json, scores.csv (a line for each image) and report.html (one page
with histograms and pictures). Exit codes: 0 all done, 1 some images couldn't be used and are named, 2 it can't be done.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from interlcm_jax.errors import InterLCMError, printable
from interlcm_jax.files.paths import resolve_paths, to_path
from interlcm_jax.runtime.platform import platform_problem
from interlcm_jax.runtime.signals import ending_signals

if TYPE_CHECKING:
    from interlcm_jax.evaluation.restoring import Restored

_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Evaluates; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        resolve_paths(arguments)
        with ending_signals():
            return run(arguments)
    except InterLCMError as error:
        _print(f"evaluate: {error}", sys.stderr)
        return 2
    except Exception:
        if (problem := platform_problem()) is None:
            raise
        print(f"evaluate: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "; the same command goes on" if arguments.model else ""
        print(f"evaluate: interrupted{again}", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--restored", type=Path, metavar="DIR", help="folder of restored faces")
    what.add_argument("--compare", nargs="+", metavar="[NAME=]DIR", help="folders of restored faces, one a method")
    what.add_argument("--model", metavar="NAME|DIR", help="a model folder or its hub name: restores --data first")
    add("--reference", type=Path, metavar="DIR", help="the originals, with the same names except for the suffix")
    add("--lq", type=Path, metavar="DIR", help="the inputs, for a row of their own and the pictures")
    add("--data", type=Path, metavar="DIR", help="a test set: lq/ and hq/, a published one, or low-quality faces alone")
    add("--test-set", metavar="NAME", help="which published set --data is, to show its numbers")
    add("--ending", default="", metavar="TEXT", help="what restored files' names end in, like _00, where they do")
    add("--protocol", metavar="NAME", help="how metrics are computed (default: basicsr)")
    add("--metrics", nargs="+", metavar="NAME", help="only these of the protocol's metrics")
    add("--weights", nargs="+", default=[], metavar="[NAME=]PATH", help="folders with the metrics' networks, or files")
    add("-o", "--out", type=Path, metavar="OUT", help="folder for the report and, with --model, the restored faces")
    add("--sheets", type=int, default=24, metavar="N", help="most pictures in the page (default: 24)")
    add("--list", action="store_true", help="list protocols, metrics, weights and test sets, and exit")
    add("--batch-size", type=int, default=4, metavar="N", help="images at a time on each device (default: 4)")
    add("--workers", type=int, default=min(4, os.cpu_count() or 1), metavar="N", help="threads that read and write")
    add("--no-compile-cache", action="store_true", help="don't keep compiled programs for the next run")
    group = parser.add_argument_group("with --model")
    group.add_argument("--seed", type=int, default=0, help="seed of the noise (default: 0)")
    group.add_argument(
        "--color-fix", choices=("wavelet", "adain", "none"), help="color correction (default: the model's)"
    )
    group.add_argument("--num-network-calls", type=int, metavar="N", help="network calls a face (default: the model's)")
    group.add_argument("--fidelity", type=float, default=0.0, metavar="F", help="as in interlcm restore (default: 0)")
    group.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    group.add_argument("--restore-batch-size", type=int, default=1, metavar="N", help="faces at a time (default: 1)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Carries out the request; returns 1 if some images couldn't be used."""
    from interlcm_jax.evaluation import protocols
    from interlcm_jax.evaluation.compare import compare
    from interlcm_jax.evaluation.page import render
    from interlcm_jax.evaluation.published import published
    from interlcm_jax.evaluation.report import Report
    from interlcm_jax.evaluation.weights import Library
    from interlcm_jax.runtime import compile_cache

    if arguments.list:
        print(_catalog())
        return 0
    _check(arguments)
    protocol = protocols.find_protocol(arguments.protocol or protocols.DEFAULT)
    metrics = protocol.choose(arguments.metrics)
    folders = [to_path(arguments.model)] if arguments.model else []
    library = Library(arguments.weights, folders)
    if not arguments.no_compile_cache:
        compile_cache.enable()
    subjects, hq, reference, restoration = _subjects(arguments)
    comparison = compare(
        subjects,
        hq,
        metrics,
        library,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        progress=_bar,
    )
    count = len(comparison.methods[0].names)
    peers = published(arguments.test_set, count, [metric.name for metric in metrics])
    notes = _count_note(arguments.test_set, count)
    report = Report(protocol, metrics, comparison, reference, arguments.test_set, peers, restoration, notes)
    _print(str(report), sys.stdout)
    if arguments.out:
        report.write(arguments.out, render(report, hq, arguments.sheets))
        _print(f"written: {arguments.out}/scores.json, scores.csv, report.html", sys.stderr)
    for line in report.warnings:
        _print(f"odd: {line}", sys.stderr)
    for line in report.failed:
        _print(f"not used: {line}", sys.stderr)
    return 1 if report.failed else 0


def _check(arguments: argparse.Namespace) -> None:
    """Checks everything that can be checked before files are read."""
    from interlcm_jax.arguments import check_batch_size

    if not (arguments.restored or arguments.compare or arguments.model):
        raise InterLCMError("nothing to score: give --restored, --compare or --model (or --list)")
    if arguments.model and not (arguments.data and arguments.out):
        raise InterLCMError("--model needs --data, what to restore, and -o, where to")
    if arguments.data and (arguments.reference or arguments.lq):
        raise InterLCMError("--data stands for --reference and --lq: give it, or these")
    if arguments.test_set and not arguments.data:
        raise InterLCMError("--test-set says what --data is: give that as well")
    check_batch_size(arguments.batch_size)
    for name, least in (("workers", 1), ("sheets", 0)):
        if getattr(arguments, name) < least:
            raise InterLCMError(f"--{name} is {getattr(arguments, name)}, but must be at least {least}")
    if arguments.out and arguments.out.exists() and not arguments.out.is_dir():
        raise InterLCMError(f"{arguments.out}: not a folder")


def _subjects(arguments: argparse.Namespace) -> tuple[Any, dict[str, Path] | None, str | None, dict[str, Any] | None]:
    """What is scored, the originals and their folder, and how images were restored, if they are now."""
    from interlcm_jax.evaluation.compare import Subject
    from interlcm_jax.evaluation.testsets import Folders, find_folders

    folders = Folders(arguments.lq, arguments.reference)
    if arguments.data:
        folders = find_folders(arguments.data, arguments.test_set)
    subjects, restoration = [], None
    if folders.lq:
        subjects.append(Subject.of_folder("LQ", "lq", folders.lq))
    if arguments.model:
        restored = _restore(arguments, subjects[0].files)
        restoration = restored.about
        if restored.kept:
            print(f"{restored.kept} of {len(subjects[0].files)} images were restored already", file=sys.stderr)
        subjects.append(Subject("restored", "method", restored.files, tuple(restored.failures.values())))
    for name, folder in _methods(arguments):
        subjects.append(Subject.of_folder(name, "method", folder, arguments.ending))
    if not folders.hq:
        return subjects, None, None, restoration
    subjects.append(Subject.of_folder("HQ", "hq", folders.hq))
    return subjects, subjects[-1].files, str(folders.hq), restoration


def _methods(arguments: argparse.Namespace) -> list[tuple[str, Path]]:
    """Names and folders of restored faces: each folder's own name where none is given, if all differ."""
    if arguments.restored:
        return [("restored", arguments.restored)]
    given = [text.partition("=") for text in arguments.compare or ()]
    pairs = [(name, to_path(path)) if equals else (None, to_path(name)) for name, equals, path in given]
    names = [name or folder.resolve().name for name, folder in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1 or name in ("LQ", "HQ")}):
        raise InterLCMError(f"--compare: {', '.join(twice)} can't name a method here; say NAME=DIR")
    return [(name, folder) for name, (_, folder) in zip(names, pairs, strict=True)]


def _restore(arguments: argparse.Namespace, files: dict[str, Path]) -> "Restored":
    """Restores the images that aren't there yet."""
    from interlcm_jax.arguments import ModelOptions
    from interlcm_jax.evaluation.restoring import restore_set
    from interlcm_jax.files.hub import matching, resolve
    from interlcm_jax.model_folder import CONFIG

    return restore_set(
        resolve(arguments.model, matching(CONFIG, "*.safetensors")),
        arguments.data,
        files,
        arguments.out,
        dtype=arguments.dtype,
        batch_size=arguments.restore_batch_size,
        workers=arguments.workers,
        progress=_bar,
        **{name: getattr(arguments, name) for name in ModelOptions.__annotations__ if name in arguments},
    )


def _bar(name: str, total: int) -> Callable[[], object]:
    """A progress bar that ends by itself."""
    bar = tqdm(total=total, unit="image", desc=name, smoothing=0.1)

    def tick() -> None:
        bar.update()
        if bar.n == total:
            bar.close()

    return tick


def _count_note(test_set: str | None, count: int) -> list[str]:
    from interlcm_jax.evaluation import testsets

    if test_set is None or testsets.find_test_set(test_set).count == count:
        return []
    return [f"{test_set} has {testsets.find_test_set(test_set).count} images as published; these are {count}."]


def _print(text: str, stream: Any) -> None:
    """Prints in whatever encoding a pipe has; names of files don't steer the terminal."""
    encoding = stream.encoding or "utf-8"
    print(printable(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


@functools.cache
def _catalog() -> str:
    """All that can be asked for."""
    from interlcm_jax.evaluation.catalog import METRICS
    from interlcm_jax.evaluation.protocols import PROTOCOLS
    from interlcm_jax.evaluation.testsets import TEST_SETS
    from interlcm_jax.evaluation.weights import WEIGHTS

    lines = ["protocols (--protocol)"]
    for protocol in PROTOCOLS.values():
        lines += [f"  {protocol.name}: {protocol.about}", f"    {', '.join(protocol.metrics)}"]
    lines += ["", "metrics (--metrics)"]
    for metric in METRICS.values():
        lines += [f"  {metric.name}: {metric.title}, {metric.how}", f"    by {metric.source}"]
        if metric.weights:
            lines.append(f"    with the weights {', '.join(metric.weights)}")
    lines += ["", "weights (--weights)"]
    for name, weights in WEIGHTS.items():
        hub = f"; else from the hub: {weights.hub}" if weights.hub else ""
        lines.append(f"  {name}: {' or '.join(weights.files)} in a folder of --weights{hub}")
    lines += ["", "test sets (--test-set)"]
    for test_set in TEST_SETS.values():
        folders = " and ".join("/ or ".join(names) + "/" for names in (test_set.lq, test_set.hq) if names)
        lines.append(f"  {test_set.name}: {test_set.count} images in {folders}; {test_set.source}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
