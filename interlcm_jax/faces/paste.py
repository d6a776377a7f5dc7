"""Restored faces back into their photo, without a seam."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# How far inwards from a face's border its mask takes to become full, over the square root of the face's area. That is
# three times the release's w, sqrt(area) / 20; its Gaussian rises within about 1.2 w, steep enough to show a difference
# of three levels on even ground.
EDGE = 3 / 20
# Rows of a face that are blended at a time: in floats a large face would take more memory than its photo.
ROWS = 64

Photo = UInt8[np.ndarray, "H W 3"]
Matrix = Float[np.ndarray, "2 3"]
# RGB photo, factor -> the photo enlarged by exactly that factor, h = round(factor · H)
Upsampler = Callable[[UInt8[np.ndarray, "H W 3"], float], UInt8[np.ndarray, "h w 3"]]


def upscale_photo(pixels: Photo, factor: float) -> UInt8[np.ndarray, "h w 3"]:
    """A photo `factor` times as large, bicubic: the ground that faces are pasted on, h = round(factor · H).

    Args:
        pixels: RGB.
        factor: 1 or more; 1 returns `pixels` itself.
    """
    if factor == 1:
        return pixels
    height, width = (max(1, round(factor * side)) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)


def enlarge_photo(
    pixels: Photo, factor: float, upsampler: Upsampler | None, original: UInt8[np.ndarray, "_ _ 3"] | None
) -> UInt8[np.ndarray, "h w 3"]:
    """A photo `factor` times as large, by an upsampler where there is one, else bicubic.

    Args:
        pixels: RGB.
        factor: 1 or more; at 1 without an upsampler `pixels` itself comes back.
        upsampler: enlarges an image by a factor.
        original: what `pixels` were interpolated from, if they were: the upsampler is shown that.
    """
    if upsampler is None:
        return upscale_photo(pixels, factor)
    if original is None:
        return upsampler(pixels, factor)
    height, width = (round(factor * side) for side in pixels.shape[:2])
    enlarged = upsampler(original, height / len(original))
    # Each side was rounded by itself.
    return enlarged if enlarged.shape[1] == width else cv2.resize(enlarged, (width, height))


def paste_faces(
    photo: Photo,
    faces: Sequence[UInt8[np.ndarray, "S S 3"]],
    matrices: Sequence[Matrix],
    upscale: float = 1.0,
    masks: Sequence[Float[np.ndarray, "M M"]] | None = None,
    *,
    overwrite: bool = False,
) -> Photo:
    """The photo with restored faces at their places, pasted one after the other.

    Within a face's square a mask rises smoothly from its border inwards; beyond the square no pixel changes. Each face
    costs as much as its own box in the photo, whatever the photo's size.

    Args:
        photo: RGB, enlarged by `upscale` (see `upscale_photo`).
        faces: RGB.
        matrices: for each face, from pixels (x, y) of the photo before it was enlarged to those of the face, pixel
            centers at whole numbers, as for `cv2.warpAffine`; rotation, scale and shift.
        upscale: how many times larger than what the faces were cut from the photo is.
        masks: how much of each pixel of a face to paste, 0 to 1, of face parsing: what it leaves out stays as it is.
            They may be smaller than the faces.
        overwrite: whether `photo` itself is changed and returned, which saves a copy.
    """
    result = photo if overwrite else photo.copy()
    for face, matrix, mask in zip(faces, matrices, masks or [None] * len(faces), strict=True):
        to_photo = _to_photo(matrix, upscale)
        _paste(result, _without_filling(face, to_photo, photo.shape, upscale), to_photo, mask)
    return result


def enlarge_faces(
    faces: Sequence[UInt8[np.ndarray, "S S 3"]],
    matrices: Sequence[Matrix],
    upscale: float,
    upsampler: Upsampler,
) -> tuple[list[UInt8[np.ndarray, "_ _ 3"]], list[Matrix]]:
    """Faces as large as they become in the photo where that is larger than they are, and the matrices that fit them.

    Args:
        faces: RGB.
        matrices: as for `paste_faces`.
        upscale: how many times the photo is enlarged.
        upsampler: enlarges an image by a factor.
    """
    enlarged, fitting = [], []
    for face, matrix in zip(faces, matrices, strict=True):
        factor = _scale(_to_photo(matrix, upscale))
        larger = upsampler(face, factor) if factor > 1 else face
        # By how much it became larger in fact: its side was rounded. Pixels' edges, not their centers, stay in place.
        factor = len(larger) / len(face)
        enlarged.append(larger)
        fitting.append(matrix * factor + [[0, 0, (factor - 1) / 2]] * 2)
    return enlarged, fitting


def _to_photo(matrix: Matrix, upscale: float) -> Matrix:
    """From pixels of the face to pixels of the enlarged photo.

    Pixel x of a photo covers [x - 1/2, x + 1/2]: its center comes to lie on upscale · (x + 1/2) - 1/2. The release adds
    upscale / 2 instead, half a pixel too far right and down.
    """
    inverse = cv2.invertAffineTransform(np.asarray(matrix, np.float64)) * upscale
    inverse[:, 2] += (upscale - 1) / 2
    return inverse


def _without_filling(face: np.ndarray, to_photo: Matrix, shape: tuple[int, ...], upscale: float) -> np.ndarray:
    """The face with its pixels beyond the photo, where alignment had nothing but a filling color, replaced by the
    nearest that saw none of it: resampling would draw that color into the photo's edge."""
    y, x = np.mgrid[: face.shape[0], : face.shape[1]].astype(np.float32)
    matrix = to_photo.astype(np.float32)
    places = [row[0] * x + row[1] * y + row[2] for row in matrix]
    # The outermost pixels' centers, and inwards of them a pixel of the face, at any angle.
    first = (upscale - 1) / 2 + 2**0.5 * _scale(to_photo)
    inside = [p.clip(first, max(first, side - 1 - first)) for p, side in zip(places, (shape[1], shape[0]), strict=True)]
    filled = (places[0] != inside[0]) | (places[1] != inside[1])
    if not filled.any():
        return face
    sources = [row[0] * inside[0] + row[1] * inside[1] + row[2] for row in cv2.invertAffineTransform(matrix)]
    nearest = cv2.remap(face, *sources, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(filled[..., None], nearest, face)


def _paste(photo: Photo, face: UInt8[np.ndarray, "S S 3"], to_photo: Matrix, mask: np.ndarray | None) -> None:
    """Pastes one face in place."""
    size = face.shape[0]
    corners = to_photo @ np.array([[-0.5, size - 0.5, -0.5, size - 0.5], [-0.5, -0.5, size - 0.5, size - 0.5], [1] * 4])
    limits = photo.shape[1], photo.shape[0]
    left, top = np.clip(np.floor(corners.min(axis=1)), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=1)) + 1, 0, limits).astype(int)
    if left >= right or top >= bottom:
        return
    opacity = _feather(size)
    if mask is not None:
        mask = mask if len(mask) == size else cv2.resize(mask, (size, size))
        opacity = np.minimum(opacity, mask, dtype=np.float32)
    scale = _scale(to_photo)
    if scale <= 0.5:
        face, opacity, to_photo = _shrink(face, opacity, to_photo, int(1 / scale))
    # From half to full size, linear interpolation averages as much as is needed.
    flags = cv2.INTER_LINEAR if 0.5 < scale < 1 else cv2.INTER_CUBIC
    to_box = to_photo - [[0, 0, left], [0, 0, top]]
    box = right - left, bottom - top
    pasted = cv2.warpAffine(face, to_box, box, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    opacity = cv2.warpAffine(opacity, to_box, box)[..., None]
    for row in range(top, bottom, ROWS):
        ground = photo[row : min(row + ROWS, bottom), left:right]
        rows = slice(row - top, row - top + len(ground))
        blended = np.subtract(pasted[rows], ground, dtype=np.float32)
        blended *= opacity[rows]
        blended += ground
        ground[...] = np.rint(blended, out=blended)


def _shrink(
    face: np.ndarray, opacity: np.ndarray, to_photo: Matrix, factor: int
) -> tuple[np.ndarray, np.ndarray, Matrix]:
    """Face, mask and matrix with the face averaged down: warping reads a few pixels around each position and would skip
    the others."""
    size = face.shape[0]
    smaller = max(1, round(size / factor))
    step = size / smaller
    scale = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2], [0, 0, 1]])
    face, opacity = (cv2.resize(x, (smaller, smaller), interpolation=cv2.INTER_AREA) for x in (face, opacity))
    return face, opacity, to_photo @ scale


def _scale(to_photo: Matrix) -> float:
    """Pixels of the photo to a pixel of the face."""
    return float(np.sqrt(abs(np.linalg.det(to_photo[:, :2]))))


def _feather(size: int) -> Float[np.ndarray, "size size"]:
    """The mask of a whole face: 0 at the border, 1 from `EDGE` inwards, between them half a cosine."""
    inwards = np.minimum(np.arange(size), np.arange(size)[::-1]) / (EDGE * size)
    profile = (0.5 - 0.5 * np.cos(np.pi * np.minimum(inwards, 1))).astype(np.float32)
    return np.outer(profile, profile)
