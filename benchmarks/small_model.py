"""How the small model treats faces of different people, and when a face is better left as it is.

    python -m benchmarks.small_model groups PAIRS [--model DIR] [-o FILE]
    python -m benchmarks.small_model blur FACES [--model DIR] [-o FILE]

PAIRS is a frozen test set (`interlcm dataset --frozen`) whose names begin with `female` or `male`: scores of
low-quality and restored faces by sex, and by tertiles of the brightness of the cheeks. FACES is a folder of sharp
aligned faces: each is blurred more and more (Gaussian, pixels at the model's size), and its distance to the sharp face
compared with the restored one's. Distances are O-Net's.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from benchmarks.report import Report, add_output
from interlcm_jax import InterLCM
from interlcm_jax.data.sources import HQ, LQ, Folder, Pairs
from interlcm_jax.default_model import SMALL
from interlcm_jax.faces.detail import detail
from interlcm_jax.faces.mtcnn import load_networks
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.metrics.image import psnr, ssim
from interlcm_jax.metrics.onet import onet_distance

Faces = UInt8[np.ndarray, "B S S 3"]
SIGMAS = (0.0, 0.6, 1.0, 1.3, 1.7, 2.2, 3.0)
CHEEKS = (0.55, 0.7), (0.31, 0.69)  # rows and columns, in parts of the aligned face
BATCH = 10  # faces at a time


def restored(model: InterLCM, lq: Faces) -> Faces:
    """The faces restored."""
    return np.stack(list(model.restore_all(iter(lq), batch_size=BATCH)))


def distances(a: Faces, b: Faces) -> Float[np.ndarray, "B"]:
    """O-Net's distance of each pair."""
    onet = load_networks(jax.local_devices()[0])[2]
    parts = [slice(i, i + BATCH) for i in range(0, len(a), BATCH)]
    batches = ([to_float(jnp.asarray(faces[part])) for faces in (a, b)] for part in parts)
    return np.concatenate([onet_distance(onet, *batch) for batch in batches])


def groups(names: list[str], hq: Faces) -> dict[str, np.ndarray]:
    """The numbers of the faces of each group."""
    size = hq.shape[1]
    rows, columns = (slice(round(first * size), round(last * size)) for first, last in CHEEKS)
    brightness = [np.median(cv2.cvtColor(face[rows, columns], cv2.COLOR_RGB2GRAY)) for face in hq]
    tertiles = np.array_split(np.argsort(brightness, kind="stable"), 3)
    sexes = {sex: np.flatnonzero([name.startswith(sex) for name in names]) for sex in ("female", "male")}
    return {"all": np.arange(len(hq)), **sexes, **dict(zip(("dark", "middle", "light"), tertiles, strict=True))}


def by_group(model: InterLCM, path: Path) -> Iterator[dict]:
    """A row for each group: means of low-quality and restored faces."""
    pairs = Pairs.open(path, model.config.image_size)
    lq, hq = (np.stack([pairs[i][kind] for i in range(len(pairs))]) for kind in (LQ, HQ))
    result = restored(model, lq)
    scores = {
        name: (np.asarray(measure(lq, hq)), np.asarray(measure(result, hq)))
        for name, measure in (("PSNR", psnr), ("SSIM", ssim), ("O-Net", distances))
    }
    for group, members in groups(list(pairs.names), hq).items():
        row = {"faces": group, "number": len(members)}
        for name, (before, after) in scores.items():
            means = (float(values[members].mean()) for values in (before, after))
            row |= dict(zip((f"{name}_low_quality", f"{name}_restored"), means, strict=True))
        yield row


def by_blur(model: InterLCM, path: Path) -> Iterator[dict]:
    """A row for each blur."""
    folder = Folder.open(path, model.config.image_size)
    sharp = np.stack([folder[i][HQ] for i in range(len(folder))])
    for sigma in SIGMAS:
        blurred = np.stack([cv2.GaussianBlur(face, (0, 0), sigma) for face in sharp]) if sigma else sharp
        before, after = distances(blurred, sharp), distances(restored(model, blurred), sharp)
        yield {
            "blur": sigma,
            "distance": before.mean().item(),
            "restored": after.mean().item(),
            "restored_is_nearer": (after < before).mean().item(),
            "detail": float(np.median([detail(face) for face in blurred])),
        }


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("groups", "blur"))
    parser.add_argument("path", type=Path, metavar="PAIRS|FACES")
    parser.add_argument("--model", type=Path, default=SMALL, metavar="DIR", help="default: the small model")
    add_output(parser)
    asked = parser.parse_args(argv)
    model = InterLCM.from_pretrained(asked.model)
    if asked.what == "groups":
        form = {"PSNR": ".2f", "SSIM": ".3f", "O-Net": ".2f"}
        scores = {f"{name}_{kind}": form[name] for name in form for kind in ("low_quality", "restored")}
        report, rows = Report({"faces": "", "number": "d"} | scores, asked.output), by_group(model, asked.path)
    else:
        columns = {"blur": ".1f", "distance": ".2f", "restored": ".2f", "restored_is_nearer": ".2f", "detail": ".2f"}
        report, rows = Report(columns, asked.output), by_blur(model, asked.path)
    for row in rows:
        report.add(row)


if __name__ == "__main__":
    main()
