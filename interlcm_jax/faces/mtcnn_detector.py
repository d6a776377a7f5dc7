"""Finds faces with MTCNN (Zhang et al. 2016): windows of all sizes are proposed, then refined twice."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Self

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from interlcm_jax.faces.candidates import Candidates, concatenated
from interlcm_jax.faces.detect import Face
from interlcm_jax.faces.mtcnn import ProposalConfig, RefinementNetwork, load_networks
from interlcm_jax.runtime.compiler_options import jit

CELL, STRIDE = ProposalConfig.CELL, ProposalConfig.STRIDE
# The networks run on batches of these shapes, whatever the photo's: each is compiled once.
TILES, TILE = 4, 192
CROPS = 32
TILE_STEP = TILE - CELL + STRIDE  # tiles overlap so that every window lies in just one
MAX_WINDOWS = 2_000  # of a photo full of texture
OUTSIDE = (128, 128, 128)  # beyond the photo: 0 to the networks
UNSURE = 2  # times the chance, by O-Net, that an upright face is none: more than its chance on its side or head
LOOKS = 2  # at faces that may be either: each starts where the one before saw the face
LONGEST = 32_000  # cv2.remap takes sides up to a little above


@dataclasses.dataclass(eq=False)
class MTCNN:
    """A detector: an upright RGB photo in, its faces out, the best first.

    Runs on the CPU where JAX has that backend, so that an accelerator isn't interrupted. Threads may share it.

    Attributes:
        min_face_size: height of the smallest faces that are looked for, in pixels.
        max_pixels: bounds the time that large photos take: the finest level of the pyramid has no more, so that the
            smallest faces found are `12 * sqrt(photo's pixels / max_pixels)` high, where that is more.
        level_step: size of a level over that of the finer one.
        angles: turns in degrees at which proposed windows are looked at: the nearest to upright scores best. Two find
            more turned faces in poor photos than one, and three take more texture for faces.
        thresholds: lowest scores that P-Net, R-Net and O-Net let pass, and O-Net once more when the face is turned
            upright, which tells faces from wheels and stones best: the score of a result.
        overlaps: what two candidates may share: within a level, over all levels and after R-Net in parts of their
            union, after O-Net in parts of the smaller one.

    Raises:
        InterLCMError: as for `load_networks`.
    """

    min_face_size: float = 24
    max_pixels: float = 2e6
    level_step: float = 0.709
    angles: tuple[float, ...] = (-15, 15)
    thresholds: tuple[float, float, float, float] = (0.6, 0.7, 0.85, 0.95)
    overlaps: tuple[float, float, float, float] = (0.5, 0.7, 0.7, 0.5)

    def __post_init__(self):
        self._proposal, self._refinement, self._output = load_networks(host_device())

    def __call__(self, photo: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """Finds the faces; a photo too small or too thin to hold one has none."""
        copies = _halvings(photo)
        found = self.propose(photo).turned(np.deg2rad(self.angles))
        found, _ = _refined(self._refinement, copies, found, self.thresholds[1])
        found = found[found.strongest(self.overlaps[2])]
        found, landmarks = _refined(self._output, copies, found, self.thresholds[2])
        best = found.strongest(self.overlaps[3], of_smaller=True)
        found, landmarks = self._upright(copies, found[best], _turns(landmarks[best]))
        found, landmarks = (part[found.scores > self.thresholds[3]] for part in (found, landmarks))
        order = np.argsort(-found.scores, kind="stable")
        # Landmarks count from the center of the first pixel.
        faces = zip(found.boxes[order], landmarks[order] - 0.5, found.scores[order], strict=True)
        return [Face(box, points, float(score)) for box, points, score in faces]

    def _upright(
        self, copies: Sequence[UInt8[np.ndarray, "_ _ 3"]], found: Candidates, angles: Float[np.ndarray, " N"]
    ) -> tuple[Candidates, Float[np.ndarray, "N 5 2"]]:
        """The candidates as O-Net sees them at these turns, upright, which gives better landmarks.

        A face on its head passes for an upright one, its mouth for the eyes. So each is looked at in four ways, in the
        same batches. Where another way scores about as well, the best after a closer look is right.
        """
        ways = np.concatenate([angles + quarters * np.pi / 2 for quarters in range(4)])
        found, landmarks = _refined(self._output, copies, dataclasses.replace(found.turned((0,) * 4), angles=ways))
        count = len(angles)
        misses = 1 - found.scores.reshape(4, count)
        unsure = np.flatnonzero(misses[1:].min(0) < UNSURE * misses[0])
        chosen = np.arange(count)
        if len(unsure):
            again = (unsure + count * np.arange(4)[:, None]).ravel()
            closer, points = found[again], landmarks[again]
            for _ in range(LOOKS):
                closer = dataclasses.replace(closer, angles=_turns(points))
                closer, points = _refined(self._output, copies, closer)
            best = closer.scores.reshape(4, -1).argmax(0)
            # One that is upright as it was taken to be stays as it was seen first.
            chosen[unsure] = np.where(best, 4 * count + best * len(unsure) + np.arange(len(unsure)), unsure)
            found, landmarks = concatenated([found, closer]), np.concatenate([landmarks, points])
        return found[chosen], landmarks[chosen]

    def with_threshold(self, score: float) -> Self:
        """The same networks, whose faces O-Net scores above this when they are upright, 0 to 1."""
        adjusted = copy.copy(self)
        *earlier, turned, _ = self.thresholds
        adjusted.thresholds = (*earlier, min(turned, score), score)
        return adjusted

    def propose(self, photo: UInt8[np.ndarray, "H W 3"]) -> Candidates:
        """Windows that P-Net takes for faces."""
        levels = list(self.levels(photo))
        places = np.array([(i, *corner) for i, level in enumerate(levels) for corner in _corners(level)], int)
        places = places.reshape(-1, 3)
        tiles = np.zeros((len(places), TILE, TILE, 3), np.uint8)
        for tile, (i, left, top) in zip(tiles, places, strict=True):
            pixels = levels[i][top : top + TILE, left : left + TILE]
            tile[: pixels.shape[0], : pixels.shape[1]] = pixels
        scores, offsets = _run(self._proposal, tiles, TILES)
        cells = np.nonzero(scores > self.thresholds[0])
        tile, row, column = cells
        level = places[tile, 0]
        starts = places[tile, 1:] + STRIDE * np.stack([column, row], axis=1)
        sizes = np.array([level.shape[1::-1] for level in levels]).reshape(-1, 2)[level]
        windows = Candidates.squares(starts, CELL, scores[cells]).moved(offsets[cells])
        windows = windows.scaled(np.array(photo.shape[1::-1]) / sizes)
        whole = (starts + CELL <= sizes).all(1)
        parts = [windows[whole & (level == i)] for i in range(len(levels))]
        windows = concatenated([part[part.strongest(self.overlaps[0])] for part in parts] or [windows])
        return windows[windows.strongest(self.overlaps[1])[:MAX_WINDOWS]]

    def levels(self, photo: UInt8[np.ndarray, "H W 3"]) -> Iterator[UInt8[np.ndarray, "_ _ 3"]]:
        """The pyramid: in each coarser level, faces that fill a window are larger."""
        height, width = photo.shape[:2]
        scale = min(CELL / self.min_face_size, (self.max_pixels / (height * width)) ** 0.5)
        while min(size := (round(width * scale), round(height * scale))) >= CELL:
            yield cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
            scale *= self.level_step


def _corners(level: UInt8[np.ndarray, "h w 3"]) -> Iterator[tuple[int, int]]:
    """Left and top of the tiles that cover a level's windows."""
    height, width = level.shape[:2]
    for top in range(0, height - CELL + 1, TILE_STEP):
        for left in range(0, width - CELL + 1, TILE_STEP):
            yield left, top


def _refined(
    network: RefinementNetwork, copies: Sequence[UInt8[np.ndarray, "_ _ 3"]], found: Candidates, threshold: float = -1
) -> tuple[Candidates, Float[np.ndarray, "M K 2"]]:
    """The candidates that a network takes for faces, moved to where it sees them, and their landmarks."""
    scores, offsets, points = _run(network, _crops(copies, found, network.config.size), CROPS)
    passed = scores > threshold
    landmarks = found.place(points)[passed]
    return dataclasses.replace(found, scores=scores)[passed].moved(offsets[passed]), landmarks


def _turns(landmarks: Float[np.ndarray, "N 5 2"]) -> Float[np.ndarray, " N"]:
    """How far faces are turned, in radians clockwise: the slope from eye to eye."""
    x, y = (landmarks[:, 1] - landmarks[:, 0]).T
    return np.arctan2(y, x)


def _crops(
    copies: Sequence[UInt8[np.ndarray, "_ _ 3"]], found: Candidates, size: int
) -> UInt8[np.ndarray, "N size size 3"]:
    """The squares about the candidates, upright, each from the copy that shows it at one to two times `size`."""
    steps = (np.arange(size) + 0.5) / size
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(1, -1, 2)
    points = found.place(np.broadcast_to(grid, (len(found), size * size, 2))).reshape(-1, size, size, 2)
    usable = [i for i, copy in enumerate(copies) if max(copy.shape) < LONGEST]
    chosen = np.floor(np.log2(found.sides / size)).astype(int).clip(usable[0], usable[-1])
    scales = np.array([copy.shape[1::-1] for copy in copies])[chosen] / copies[0].shape[1::-1]
    # Pixel coordinates count from the center of the first pixel.
    pixels = (points * scales[:, None, None] - 0.5).astype(np.float32)
    crops = np.empty((len(found), size, size, 3), np.uint8)
    for crop, i, where in zip(crops, chosen, pixels, strict=True):
        crop[:] = cv2.remap(
            copies[i], where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=OUTSIDE
        )
    return crops


def _halvings(photo: UInt8[np.ndarray, "H W 3"]) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """The photo and smaller and smaller copies, down to the crops' size."""
    copies = [photo]
    while max(copies[-1].shape) > 2 * CELL:
        height, width = copies[-1].shape[:2]
        half = (max(1, width // 2), max(1, height // 2))
        copies.append(cv2.resize(copies[-1], half, interpolation=cv2.INTER_AREA))
    return copies


def host_device() -> jax.Device:
    """The host's CPU if JAX has it as a backend, else the first of the default devices."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def _run(network: nnx.Module, images: UInt8[np.ndarray, "N H W 3"], batch: int) -> list[np.ndarray]:
    """A network's outputs for any number of images, which it gets in batches of one size, the last one filled up."""
    graph, state = nnx.split(network)
    count = max(1, -(-len(images) // batch))
    filled = np.zeros((count * batch, *images.shape[1:]), np.uint8)
    filled[: len(images)] = images
    outputs = [_outputs(graph, state, part) for part in np.split(filled, count)]
    return [np.concatenate(parts)[: len(images)] for parts in zip(*outputs, strict=True)]


@jit(static_argnums=0)
def _outputs(graph: nnx.GraphDef, state: nnx.State, images: UInt8[Array, "B H W 3"]) -> tuple[Array, ...]:
    with jax.default_matmul_precision("highest"):
        return nnx.merge(graph, state)((images.astype(jnp.float32) - 127.5) / 128)
