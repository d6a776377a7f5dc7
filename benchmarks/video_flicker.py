"""How steady restored videos are, against the same frames restored as photos, one by one.

    python -m benchmarks.video_flicker FACES [--faces N] [--frames N] [--model DIR] [-o FILE]

FACES is a folder of sharp aligned faces. Each becomes a clip of 640 x 360 in which it drifts, turns and comes nearer by
known amounts, seen through a blur and noise and JPEG that are fresh in every frame. Restored frames are warped back by
the known motion: what still changes from frame to frame is flicker. It is the standard deviation of each pixel over
time, in levels of 255, averaged over the face. Sharpness is the mean over frames of the luma's gradient there.
"""

import argparse
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from benchmarks.report import Report, add_output
from interlcm_jax import InterLCM, RestoreOptions
from interlcm_jax.data.sources import HQ, Folder
from interlcm_jax.default_model import SMALL
from interlcm_jax.faces.mtcnn_detector import MTCNN
from interlcm_jax.faces.paste import upscale_photo
from interlcm_jax.imaging.io import Photo
from interlcm_jax.photos.image import extract_faces, paste_back
from interlcm_jax.photos.video.clip import read_clip
from interlcm_jax.photos.video.found import find_all
from interlcm_jax.photos.video.frames import read_frames
from interlcm_jax.photos.video.plan import plan_faces
from interlcm_jax.photos.video.pyav import av
from interlcm_jax.photos.video.segments import Finishing, restore_segment, with_neighbors
from interlcm_jax.photos.video.work import Work

WIDTH, HEIGHT, RATE = 640, 360, 25
SIZE = 256  # of the face in the frame, and of what is compared
BLUR, NOISE, QUALITY = 2.2, 8.0, 60  # pixels, levels, JPEG's quality
FACE = slice(64, 224), slice(56, 200)  # rows and columns of the aligned face: brows to chin
OPTIONS = RestoreOptions(upscale=1, leave_sharp="off")
BATCH = 4
Frames = list[UInt8[np.ndarray, "H W 3"]]


def motion(count: int) -> list[Float32[np.ndarray, "2 3"]]:
    """For each frame, from the face's pixels to the frame's."""
    matrices = []
    for i in range(count):
        t = i / RATE
        scale = 1 + 0.06 * np.sin(1.7 * t)
        turn = np.deg2rad(5 * np.sin(2.3 * t))
        linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        place = np.array([WIDTH / 2 + 70 * np.sin(1.1 * t), HEIGHT / 2 + 25 * np.sin(1.9 * t)])
        matrices.append(np.column_stack([linear, place - linear @ np.full(2, (SIZE - 1) / 2)]).astype(np.float32))
    return matrices


def sharp_frames(face: UInt8[np.ndarray, "S S 3"], matrices: list[np.ndarray]) -> Frames:
    """The face in motion, before anything is lost."""
    size = (WIDTH, HEIGHT)
    return [cv2.warpAffine(face, m, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for m in matrices]


def degraded(frames: Frames, seed: int) -> Frames:
    """The frames blurred, and with noise and JPEG of their own."""
    rng, result = np.random.default_rng(seed), []
    for frame in frames:
        blurred = cv2.GaussianBlur(frame, (0, 0), BLUR).astype(np.float32)
        noisy = np.clip(np.rint(blurred + rng.normal(0, NOISE, frame.shape)), 0, 255).astype(np.uint8)
        _, file = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        result.append(np.ascontiguousarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1]))
    return result


def write_clip(path: Path, frames: Frames) -> None:
    """Writes frames without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE, options={})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


class Collected(list):
    """Takes restored frames as an encoder does, so that what is measured isn't the encoder's loss."""

    def add(self, pixels: UInt8[np.ndarray, "H W 3"], pts: int) -> None:
        """Keeps a frame."""
        self.append(pixels)


def tracked(model: InterLCM, frames: Frames, folder: Path, detector: MTCNN) -> Frames:
    """The frames restored as a video, in one segment."""
    size, result = model.config.image_size, Collected()
    write_clip(folder / "clip.mkv", frames)
    clip = read_clip(folder / "clip.mkv")
    found, cuts = find_all(clip, Work(folder), size, detector, 2, lambda done: None)
    plan = plan_faces(found, cuts, (HEIGHT, WIDTH), model.config, OPTIONS)
    around = with_neighbors(read_frames(clip), plan, size, 0)
    restoring = functools.partial(model.restore_all, batch_size=BATCH)
    finishing = Finishing(model.config, None, OPTIONS.upscale, upscale_photo)
    restore_segment(around, 0, restoring, finishing, result, 2, lambda done: None)
    return result


def one_by_one(model: InterLCM, frames: Frames, detector: MTCNN) -> Frames:
    """The frames restored as photos."""
    extracted = [extract_faces(Photo(frame), model.config, OPTIONS, detector) for frame in frames]
    restored = model.restore_all((face for one in extracted for face in one.faces), batch_size=BATCH)
    return [paste_back(one, [next(restored) for _ in one.faces], model.config, OPTIONS)[0] for one in extracted]


def scores(frames: Frames, matrices: list[np.ndarray]) -> tuple[float, float]:
    """Flicker and sharpness."""
    faces = []
    for frame, matrix in zip(frames, matrices, strict=True):
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        aligned = cv2.warpAffine(frame.astype(np.float32), matrix, (SIZE, SIZE), flags=flags)
        faces.append(cv2.cvtColor(aligned, cv2.COLOR_RGB2GRAY)[FACE])
    flicker = np.std(np.stack(faces), axis=0).mean()
    sharpness = np.mean([np.hypot(*np.gradient(face)).mean() for face in faces])
    return float(flicker), float(sharpness)


def rows(model: InterLCM, path: Path, number: int, count: int) -> Iterator[dict]:
    """A row for each face, and one for their mean."""
    folder, detector, matrices = Folder.open(path, SIZE), MTCNN(), motion(count)
    every = []
    for i in range(min(number, len(folder))):
        sharp = sharp_frames(folder[i][HQ], matrices)
        bad = degraded(sharp, i)
        with tempfile.TemporaryDirectory() as temporary:
            video = tracked(model, bad, Path(temporary), detector)
        kinds = {"original": sharp, "input": bad, "one_by_one": one_by_one(model, bad, detector), "tracked": video}
        row = {"face": str(i + 1)}
        for kind, frames in kinds.items():
            row[f"flicker_{kind}"], row[f"sharpness_{kind}"] = scores(frames, matrices)
        every.append(row | ratios(row))
        yield every[-1]
    mean = {name: float(np.mean([row[name] for row in every])) for name in every[0] if name != "face"}
    yield {"face": "mean"} | mean | ratios(mean)


def ratios(row: dict) -> dict:
    """Tracked over one by one."""
    return {f"{what}_ratio": row[f"{what}_tracked"] / row[f"{what}_one_by_one"] for what in ("flicker", "sharpness")}


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces_folder", type=Path, metavar="FACES")
    parser.add_argument("--faces", type=int, default=8, metavar="N", help="clips (default: 8)")
    parser.add_argument("--frames", type=int, default=50, metavar="N", help="frames of each (default: 50)")
    parser.add_argument("--model", type=Path, default=SMALL, metavar="DIR", help="default: the small model")
    add_output(parser)
    asked = parser.parse_args(argv)
    kinds = ("original", "input", "one_by_one", "tracked", "ratio")
    columns = {"face": ""} | {f"{what}_{kind}": ".2f" for what in ("flicker", "sharpness") for kind in kinds}
    report = Report(columns, asked.output)
    for row in rows(InterLCM.from_pretrained(asked.model), asked.faces_folder, asked.faces, asked.frames):
        report.add(row)


if __name__ == "__main__":
    main()
