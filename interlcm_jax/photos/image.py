"""One image: its faces found and cut out, and pasted back restored; or an aligned face, which needs neither."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from interlcm_jax.arguments import ModelOptions, check_kind
from interlcm_jax.errors import InterLCMError, number_problems
from interlcm_jax.faces.align import align
from interlcm_jax.faces.detail import detail
from interlcm_jax.faces.detect import Detector
from interlcm_jax.faces.mtcnn_detector import MTCNN
from interlcm_jax.faces.outline import head_mask
from interlcm_jax.faces.paste import Upsampler, enlarge_faces, enlarge_photo, paste_faces
from interlcm_jax.faces.select import FaceChoice, select_faces
from interlcm_jax.files.paths import to_path
from interlcm_jax.imaging.gray import is_gray, recolor, to_gray
from interlcm_jax.imaging.io import Photo, fit_square, read_photo
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.photos.search import search
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.runtime.memory import memory_explained

GRAY = ("auto", "keep", "color")

# (B, S, S, 3) restored faces -> how much of each pixel is face, (B, S, S) in [0, 1]
Parser = Callable[[UInt8[np.ndarray, "B S S 3"]], Float[np.ndarray, "B S S"]]


@dataclasses.dataclass(frozen=True)
class RestoreOptions(FaceChoice):
    """What is done with an image; its `FaceChoice` says which of a photo's faces are restored.

    Attributes:
        aligned: images are aligned faces, whole; else photos to find faces in.
        upscale: how many times larger than the photo the result is, 1 to 16; aligned faces ignore it.
        gray: the colors of the result. "color": the networks'. "keep": the image's, so that only light and shade are
            restored. "auto": the image's where it is gray or toned, else the networks'; for colorization always
            the networks'.
        leave_sharp: which faces are left as they are, having more detail than the model draws: those above a value of
            `faces.detail`, or "auto", above the model's own, or "off", none. Only restoration leaves faces.
        upsample_faces: whether faces that are larger in the result than the model draws them are enlarged by the
            upsampler too, where there is one; else by interpolation.
    """

    aligned: bool = False
    upscale: float = 2.0
    gray: str = "auto"
    leave_sharp: str | float = "auto"
    upsample_faces: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.gray not in GRAY:
            raise InterLCMError(f"gray is {self.gray!r}, but must be one of {', '.join(GRAY)}")
        for name in ("aligned", "upsample_faces"):
            check_kind(name, getattr(self, name), bool | np.bool_, "True or False")
        if problems := number_problems("upscale", self.upscale, 1, 16, float):
            raise InterLCMError(problems[0])
        is_number = not number_problems("leave_sharp", self.leave_sharp, 0, math.inf, float)
        if not is_number and self.leave_sharp not in ("auto", "off"):
            raise InterLCMError(f"leave_sharp is {self.leave_sharp!r}, but must be auto, off or a number from 0")


DEFAULT = RestoreOptions()


@dataclasses.dataclass(frozen=True, eq=False)
class ExtractedFaces:
    """An image and the faces cut out of it.

    Attributes:
        photo: the file's content; photos whose shorter side is shorter than a face are enlarged to that.
        faces: the faces to restore, uint8 RGB at the model's size.
        matrices: for each of them, from the photo's pixels to the face's; none for an aligned face.
        landmarks: for each of them, of eyes, nose and mouth, in pixels of the photo; none for an aligned face.
        left: faces that are too sharp to be restored, which stay as they are.
        original: the photo's pixels as the file has them, where they were enlarged.
    """

    photo: Photo
    faces: list[UInt8[np.ndarray, "S S 3"]]
    matrices: list[Float[np.ndarray, "2 3"]] = dataclasses.field(default_factory=list)
    landmarks: list[Float[np.ndarray, "5 2"]] = dataclasses.field(default_factory=list)
    left: list[UInt8[np.ndarray, "S S 3"]] = dataclasses.field(default_factory=list)
    original: UInt8[np.ndarray, "H W 3"] | None = None


def restore_photo(
    model: InterLCM,
    photo: Photo | Path,
    options: RestoreOptions = DEFAULT,
    detector: Detector | None = None,
    parser: Parser | None = None,
    *,
    upsampler: Upsampler | None = None,
    batch_size: int = 1,
    **model_options: Unpack[ModelOptions],
) -> UInt8[np.ndarray, "H W 3"]:
    """Restores the faces of one image; one without a face comes back enlarged and otherwise unchanged.

    Many images are better restored together by `restore_files`: their faces then share batches.

    Args:
        model: the model.
        photo: an image, or its file.
        options: what is done with it.
        detector: finds the faces; None is MTCNN.
        parser: see `paste_back`.
        upsampler: see `paste_back`.
        batch_size: faces at a time on each device.
        **model_options: as in `InterLCM.restore`.

    Raises:
        InterLCMError: the file can't be read, an argument isn't possible, the device has too little memory, or the
            networks gave NaN or infinity.
    """
    check_photo_arguments(model, options, detector, parser, upsampler)
    if detector is None and not options.aligned:
        detector = MTCNN()
    extracted = extract_faces(photo, model.config, options, detector)
    with out_of_memory(batch_size):
        restored = list(model.restore_all(extracted.faces, batch_size=batch_size, **model_options))
    pixels, _ = paste_back(extracted, restored, model.config, options, parser, upsampler)
    return pixels


def check_photo_arguments(
    model: InterLCM,
    options: RestoreOptions,
    detector: Detector | None,
    parser: Parser | None,
    upsampler: Upsampler | None = None,
) -> None:
    """What `restore_photo` and `restore_files` take besides images.

    Raises:
        InterLCMError: one is of another type; says what it must be.
    """
    check_kind("model", model, InterLCM, "an InterLCM, such as InterLCM.from_pretrained() gives")
    check_kind("options", options, RestoreOptions, "RestoreOptions, such as RestoreOptions(aligned=True)")
    for name, function in (("detector", detector), ("parser", parser), ("upsampler", upsampler)):
        check_kind(name, function, Callable | None, "None or a function")
    if options.upsample_faces and upsampler is None:
        raise InterLCMError("upsample_faces is True, but there is no upsampler")


def out_of_memory(batch_size: int) -> contextlib.AbstractContextManager[None]:
    """What to do where the device has too little memory to restore faces."""
    remedy = "lower the batch size or the VAE slice, or use bfloat16"
    return memory_explained(f"to restore faces with a batch size of {batch_size}", remedy)


def extract_faces(
    photo: Photo | Path, config: ModelConfig, options: RestoreOptions, detector: Detector | None
) -> ExtractedFaces:
    """Reads an image and cuts its faces out.

    Args:
        photo: an image, or its file.
        config: the model's: its size and its task.
        options: what is done with the image.
        detector: finds the faces; not needed for aligned ones.

    Raises:
        InterLCMError: the file can't be read, what is given is no image, or the photo lacks a face of a number that
            `options.faces` names.
    """
    name = f"{photo}: " if isinstance(photo, str | os.PathLike) else ""
    photo = _opened(photo)
    size = config.image_size
    if options.aligned:
        face = fit_square(photo.pixels, size)
        if _is_sharp(face, size / min(photo.pixels.shape[:2]), options, config):
            return ExtractedFaces(photo, [], left=[face])
        return ExtractedFaces(photo, [as_trained(face, config)])
    pixels, enlargement, candidates = search(photo.pixels, size, options, detector)
    try:
        selected = select_faces(candidates, pixels, options.faces)
    except InterLCMError as error:
        raise InterLCMError(f"{name}{error}") from error
    original = photo.pixels if enlargement > 1 else None
    extracted = ExtractedFaces(dataclasses.replace(photo, pixels=pixels), [], original=original)
    for one in selected:
        face, matrix = align(pixels, one.landmarks, size)
        if _is_sharp(face, enlargement * np.linalg.det(matrix[:, :2]) ** 0.5, options, config):
            extracted.left.append(face)
            continue
        extracted.faces.append(as_trained(face, config))
        extracted.matrices.append(matrix)
        extracted.landmarks.append(one.landmarks)
    return extracted


def paste_back(
    extracted: ExtractedFaces,
    restored: list[UInt8[np.ndarray, "S S 3"] | None],
    config: ModelConfig,
    options: RestoreOptions,
    parser: Parser | None = None,
    upsampler: Upsampler | None = None,
) -> tuple[UInt8[np.ndarray, "H W 3"], list[UInt8[np.ndarray, "S S 3"]]]:
    """The image restored, and its faces as they were pasted.

    Args:
        extracted: the image, from `extract_faces`.
        restored: its faces, restored, in the same order; None for one that isn't finite.
        config: the model's.
        options: those that `extract_faces` took.
        parser: masks of what is face; without it they are made from landmarks and colors (`faces.outline`), and for
            tasks but restoration the faces' squares are pasted with soft edges.
        upsampler: enlarges the photo that the faces are pasted on (see `upsample.load_upsampler`); without it bicubic
            interpolation does. Aligned faces aren't enlarged.

    Raises:
        InterLCMError: the networks gave NaN or infinity for a face, or there are not as many as were extracted.
    """
    if len(restored) != len(extracted.faces):
        raise InterLCMError(f"{len(restored)} restored faces given for {len(extracted.faces)} that were extracted")
    if broken := sum(face is None for face in restored):
        raise InterLCMError(f"the networks gave NaN or infinity for {broken} of {len(restored)} faces; try float32")
    if keeps_colors(extracted.photo.pixels, config, options):
        restored = [recolor(face, lq) for face, lq in zip(restored, extracted.faces, strict=True)]
    if options.aligned:
        return (restored or extracted.left)[0], restored
    ground = enlarge_photo(extracted.photo.pixels, options.upscale, upsampler, extracted.original)
    masks = None
    if parser and restored:
        masks = list(parser(np.stack(restored)))
    elif config.task == "restoration":
        masks = _head_masks(extracted, restored)
    own = ground is not extracted.photo.pixels
    pasted, matrices = restored, extracted.matrices
    if options.upsample_faces and upsampler:
        pasted, matrices = enlarge_faces(restored, matrices, options.upscale, upsampler)
    return paste_faces(ground, pasted, matrices, options.upscale, masks, overwrite=own), restored


def side_by_side(before: UInt8[np.ndarray, "H W 3"], after: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h _ 3"]:
    """An image and what it became, the first resized to the second's size."""
    if before.shape != after.shape:
        before = cv2.resize(before, after.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.concatenate([before, after], axis=1)


def keeps_colors(pixels: UInt8[np.ndarray, "H W 3"], config: ModelConfig, options: RestoreOptions) -> bool:
    """Whether the result has the image's own colors (see `RestoreOptions.gray`)."""
    if options.gray != "auto":
        return options.gray == "keep"
    return config.task != "colorization" and is_gray(pixels)


def _opened(photo: Photo | str | os.PathLike) -> Photo:
    """An image, which is read where its file is given."""
    if isinstance(photo, str | os.PathLike):
        return read_photo(to_path(photo))
    check_kind("photo", photo, Photo, "a file, or an imaging.io.Photo: Photo(pixels) of uint8 RGB, (H, W, 3)")
    pixels = photo.pixels
    check_kind("photo.pixels", pixels, np.ndarray, "a NumPy array")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InterLCMError(f"photo.pixels are {pixels.dtype} {pixels.shape}, but must be uint8 RGB, (H, W, 3)")
    return photo


def sharpness_bound(options: RestoreOptions, config: ModelConfig) -> float:
    """The detail from which on a face is left as it is (see `RestoreOptions.leave_sharp`); infinity where none is."""
    bound = config.leave_sharp if options.leave_sharp == "auto" else options.leave_sharp
    if config.task != "restoration" or bound is None or bound == "off":
        return math.inf
    return float(bound)


def _is_sharp(face: UInt8[np.ndarray, "S S 3"], enlarged: float, options: RestoreOptions, config: ModelConfig) -> bool:
    """Whether a face is left as it is."""
    bound = sharpness_bound(options, config)
    return bound < math.inf and detail(face, enlarged) > bound


def _head_masks(extracted: ExtractedFaces, restored: list[UInt8[np.ndarray, "S S 3"]]) -> list[np.ndarray]:
    places = zip(extracted.faces, restored, extracted.matrices, extracted.landmarks, strict=True)
    return [head_mask(lq, face, points @ matrix[:, :2].T + matrix[:, 2]) for lq, face, matrix, points in places]


def as_trained(face: UInt8[np.ndarray, "S S 3"], config: ModelConfig) -> UInt8[np.ndarray, "S S 3"]:
    """Colorization was trained on gray faces only."""
    return to_gray(face) if config.task == "colorization" else face
