"""What the page does with a photo: its faces shown with numbers, or restored and written."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Unpack

import cv2
import numpy as np
from jaxtyping import UInt8

from interlcm_jax.arguments import ModelOptions
from interlcm_jax.demo.batches import SharedBatches
from interlcm_jax.demo.storage import new_folder
from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.detect import Detector
from interlcm_jax.faces.paste import Upsampler
from interlcm_jax.faces.select import FaceChoice
from interlcm_jax.imaging.io import Photo, read_photo, write_photo
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.photos.image import ExtractedFaces, Parser, RestoreOptions, extract_faces, paste_back
from interlcm_jax.photos.numbered import draw_numbers, find_numbered

# Pixels of a photo, and of a result: several are in memory at a time, in some copies each.
MAX_PIXELS, MAX_RESULT = 50_000_000, 100_000_000
# The longer side of what the page shows; what it offers to download is whole.
SHOWN = 2048

# What part of the work is done, 0 to 1, and what comes next.
Progress = Callable[[float, str], object]


class Numbered(NamedTuple):
    """A picture of a photo with its faces numbered, and how many there are."""

    picture: Path
    faces: int


class Restored(NamedTuple):
    """The restored photo, it and its input at a size to look at, and a line on what was done."""

    result: Path
    before: Path
    after: Path
    summary: str


@dataclasses.dataclass(frozen=True)
class Restorer:
    """A loaded model at work for the page.

    Attributes:
        config: the model's.
        batches: restores faces.
        detector: finds them.
        storage: the folder that results are written into, each in a folder of its own.
        parser: see `photos.image.paste_back`.
        upsampler: enlarges photos where a visitor wants that; without it bicubic interpolation does.
    """

    config: ModelConfig
    batches: SharedBatches
    detector: Detector
    storage: Path
    parser: Parser | None = None
    upsampler: Upsampler | None = None

    def number(self, source: Path) -> Numbered:
        """Finds the faces of a photo.

        Raises:
            InterLCMError: the photo can't be read, or is too large; names it without its folder.
        """
        photo = _read(source)
        faces = find_numbered(photo, self.config.image_size, FaceChoice(), self.detector)
        picture = new_folder(self.storage) / f"{source.stem}.jpg"
        _write_shown(picture, draw_numbers(photo.pixels, faces), photo)
        return Numbered(picture, len(faces))

    def restore(
        self,
        source: Path,
        options: RestoreOptions,
        progress: Progress = lambda part, what: None,
        *,
        upsample: bool = False,
        **model_options: Unpack[ModelOptions],
    ) -> Restored:
        """Restores the faces of a photo, together with those of other visitors.

        Args:
            source: the photo.
            options: what is done with it.
            progress: told of every step.
            upsample: enlarge the photo by the upsampler, if there is one.
            **model_options: as in `InterLCM.restore`.

        Raises:
            InterLCMError: the photo can't be read or is too large, has no face or not the one that was chosen, or
                can't be restored; names it without its folder.
        """
        name = source.name
        progress(0, f"{name}: finding faces")
        photo = _read(source)
        _check_result(photo, options.upscale, name)
        try:
            extracted = extract_faces(photo, self.config, options, self.detector)
            if not extracted.faces and not extracted.left:
                raise InterLCMError("no face was found")
            count = len(extracted.faces)

            def done(finished: int) -> None:
                progress(0.1 + 0.8 * finished / max(count, 1), f"{name}: {finished} of {count} faces restored")

            done(0)
            faces = self.batches.restore(extracted.faces, done, **model_options)
            upsampler = self.upsampler if upsample else None
            progress(0.9, f"{name}: putting the photo together")
            pixels, _ = paste_back(extracted, faces, self.config, options, self.parser, upsampler)
        except InterLCMError as error:
            raise InterLCMError(f"{name}: {error}") from error
        return self._write(source, photo, pixels, _summary(name, extracted))

    def _write(self, source: Path, photo: Photo, pixels: UInt8[np.ndarray, "H W 3"], summary: str) -> Restored:
        folder = new_folder(self.storage)
        # Names of their own, as a browser shows one picture for the same address.
        before, after = folder / "before.jpg", folder / "after.jpg"
        size = _shown_size(pixels)
        _write_shown(before, cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA), photo)
        _write_shown(after, pixels, photo)
        result = folder / f"{source.stem}_restored.png"
        write_photo(result, pixels, photo)
        return Restored(result, before, after, summary)


def _read(source: Path) -> Photo:
    try:
        return read_photo(source, MAX_PIXELS)
    except InterLCMError as error:
        # Visitors know their file by its name; where it lies is nobody's business.
        raise InterLCMError(str(error).replace(str(source), source.name)) from None


def _check_result(photo: Photo, upscale: float, name: str) -> None:
    pixels = round(photo.pixels.shape[0] * upscale) * round(photo.pixels.shape[1] * upscale)
    if pixels > MAX_RESULT:
        raise InterLCMError(
            f"{name}: enlarged {upscale:g} times it would have {pixels / 1e6:.0f} million pixels; this page makes up "
            f"to {MAX_RESULT / 1e6:.0f} million: enlarge it less"
        )


def _summary(name: str, extracted: ExtractedFaces) -> str:
    restored, left = len(extracted.faces), len(extracted.left)
    line = f"{name}: {restored} face{'' if restored == 1 else 's'} restored"
    return f"{line}, {left} left as {'it is' if left == 1 else 'they are'}, sharp already" if left else line


def _shown_size(pixels: UInt8[np.ndarray, "H W 3"]) -> tuple[int, int]:
    """Width and height at which a picture is shown."""
    height, width = pixels.shape[:2]
    factor = min(1.0, SHOWN / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _write_shown(path: Path, pixels: UInt8[np.ndarray, "H W 3"], photo: Photo) -> None:
    shown = cv2.resize(pixels, _shown_size(pixels), interpolation=cv2.INTER_AREA)
    write_photo(path, shown, dataclasses.replace(photo, alpha=None))
