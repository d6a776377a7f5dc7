"""Draws the documents' figures: curves of the small model's stages, sheets of held-out faces, the fidelity knobs.

python docs/figures.py curves encoders runs/small -o docs/curves_encoders.svg
python docs/figures.py sheet data/test/lq 1step/restored 3step/restored data/test/hq -o docs/faces.jpg
python docs/figures.py knobs MODEL data/test/lq data/test/hq --names 0932 -o docs/fidelity.jpg

The curves need `pip install matplotlib`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from interlcm_jax import InterLCM
from interlcm_jax.files.atomic import whole_file

THREE_STEP = ("3step", "3step_structure", "3step_finish")
LARGE = ("3step_large", "3step_sharpen")
WIDE = ("3step_wide", "3step_wide_sharpen")
# Figures of panels: each its title, the runs it joins (one goes on where the other ended), and the logged number.
FIGURES = {
    "frozen": {
        "autoencoder: PSNR, dB": (("autoencoder", "autoencoder_finish"), "validation/psnr"),
        "token tower: PSNR of completed faces, dB": (("token_tower",), "validation/psnr"),
        "prior: mean squared error of the noise": (("prior",), "loss"),
        "distillation: consistency loss": (("distillation",), "loss"),
    },
    "encoders": {
        "warm-up: latents' difference at the last call": (("warm_up",), "loss/last_call"),
        "warm-up, then 3-step; 1-step: PSNR, dB": (("warm_up", *THREE_STEP), "validation/psnr"),
        "warm-up, then 3-step; 1-step: SSIM": (("warm_up", *THREE_STEP), "validation/ssim"),
        "3-step; 1-step: L1": (THREE_STEP, "loss/l1"),
    },
    "adversarial": {
        "wide decoder: O-Net's distance": (("autoencoder_wide",), "loss/onet"),
        "wide decoder: difference of fine detail": (("autoencoder_wide",), "loss/texture"),
        "3-step, adversarial: O-Net's distance": (("3step_adversarial",), "loss/onet"),
        "3-step, adversarial: difference of fine detail": (("3step_adversarial",), "loss/texture"),
    },
    "sharpened": {
        "decoder, sharpened: SSIM of the round trip": (("autoencoder_sharpen",), "validation/ssim"),
        "decoder, sharpened: O-Net's distance": (("autoencoder_sharpen",), "loss/onet"),
        "large batches, then sharpened: SSIM": (LARGE, "validation/ssim"),
        "large batches, then sharpened: O-Net's distance": (LARGE, "loss/onet"),
    },
    "wide": {
        "prior, large batches: mean squared error of the noise": (("prior_large",), "loss"),
        "distillation, large batches: consistency loss": (("distillation_large",), "loss"),
        "decoder, small patches: SSIM of the round trip": (("autoencoder_finest",), "validation/ssim"),
        "3-step through both, then sharpened: SSIM": (WIDE, "validation/ssim"),
    },
}
LOG = "log.jsonl"
TILE, QUALITY, ROWS = 128, 88, 16
FIDELITIES = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    """Draws what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawn = commands.add_parser("curves", help="what the runs logged")
    drawn.add_argument("figure", choices=FIGURES)
    drawn.add_argument("runs", type=Path, help="the folder of the stages' runs")
    shown = commands.add_parser("sheet", help="faces side by side")
    shown.add_argument("columns", type=Path, nargs="+", help="folders, matched by name")
    turned = commands.add_parser("knobs", help="faces by fidelity and by number of network calls")
    turned.add_argument("model", type=Path)
    turned.add_argument("lq", type=Path, help="a folder of low-quality faces")
    turned.add_argument("hq", type=Path, help="their originals")
    turned.add_argument("--names", nargs="+", required=True, help="which faces, without a suffix")
    for each in (drawn, shown, turned):
        each.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "curves":
        curves(FIGURES[arguments.figure], arguments.runs, arguments.out)
        return
    page = (
        sheet(arguments.columns)
        if arguments.command == "sheet"
        else knobs(arguments.model, arguments.lq, arguments.hq, arguments.names)
    )
    with whole_file(arguments.out) as temporary:
        page.save(temporary, "JPEG", quality=QUALITY)


def curves(panels: Mapping[str, tuple[Sequence[str], str]], runs: Path, out: Path) -> None:
    """A figure of `FIGURES`, over the steps."""
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "interlcm"  # else each drawing has other identifiers
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 5.5), layout="constrained")
    for axis, (title, (names, number)) in zip(axes.flat, panels.items(), strict=True):
        # The label is seen only where the 1-step run is drawn beside it.
        axis.plot(*joined([runs / name for name in names], number), label="3-step")
        if names[-1] == THREE_STEP[-1] and (runs / "1step" / LOG).is_file():
            axis.plot(*joined([runs / "1step"], number), label="1-step")
            axis.legend()
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    with whole_file(out) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def joined(runs: Sequence[Path], number: str) -> tuple[list[int], list[float]]:
    """A number that runs logged and its steps; each run's steps follow those of the one before."""
    steps, values, before = [], [], 0
    for run in runs:
        records = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
        # Where a run was taken up again, the later record of a step counts.
        logged = {record["step"]: record[number] for record in records if number in record}
        steps += [before + step for step in sorted(logged)]
        values += [logged[step] for step in sorted(logged)]
        before += max(record["step"] for record in records)
    return steps, values


def sheet(folders: Sequence[Path]) -> Image.Image:
    """All faces of the first folder, in blocks of a column for each folder and `ROWS` rows."""
    columns = [{path.stem: path for path in sorted(folder.iterdir())} for folder in folders]
    names = sorted(columns[0])
    blocks = -(-len(names) // ROWS)
    width = len(folders) * TILE
    page = np.full((min(len(names), ROWS) * TILE, blocks * width + (blocks - 1) * TILE // 8, 3), 255, np.uint8)
    for place, name in enumerate(names):
        block, row = divmod(place, ROWS)
        for number, column in enumerate(columns):
            face = Image.open(column[name]).convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
            left = block * (width + TILE // 8) + number * TILE
            page[row * TILE : (row + 1) * TILE, left : left + TILE] = np.asarray(face)
    return Image.fromarray(page)


def knobs(model_folder: Path, lq: Path, hq: Path, names: Sequence[str]) -> Image.Image:
    """A row for each face: LQ; restored at each of `FIDELITIES`; with fewer calls, the fewest first; HQ."""
    model = InterLCM.from_pretrained(model_folder)
    settings = [{"fidelity": fidelity} for fidelity in FIDELITIES]
    settings += [{"num_network_calls": calls} for calls in range(1, model.config.num_network_calls)]
    rows = []
    for name in names:
        low, high = (np.asarray(Image.open(next(folder.glob(f"{name}.*"))).convert("RGB")) for folder in (lq, hq))
        restored = [model.restore(low[None], seed=0, **setting)[0] for setting in settings]
        rows.append(np.concatenate([low, *map(np.asarray, restored), high], axis=1))
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    main()
