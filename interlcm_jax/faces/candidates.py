"""Rectangles in a photo that may hold a face: their geometry, and which of them are about the same face."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int, Real


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Rectangles, each turned about its center.

    Attributes:
        centers: x and y, in pixels from the photo's left and top edge.
        sizes: widths and heights, in pixels.
        angles: turns in radians, clockwise as seen in the picture.
        scores: how likely each holds a face, 0 to 1.
    """

    centers: Float[np.ndarray, "N 2"]
    sizes: Float[np.ndarray, "N 2"]
    angles: Float[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Int[np.ndarray, " M"] | Bool[np.ndarray, " N"]) -> Self:
        return type(self)(self.centers[index], self.sizes[index], self.angles[index], self.scores[index])

    @classmethod
    def squares(cls, corners: Real[np.ndarray, "N 2"], side: float, scores: Float[np.ndarray, " N"]) -> Self:
        """Upright squares of one size, given their left and top."""
        return cls(corners + side / 2, np.full(corners.shape, float(side)), np.zeros(len(corners)), scores)

    @property
    def boxes(self) -> Float[np.ndarray, "N 4"]:
        """Left, top, right and bottom, were they not turned."""
        return np.concatenate([self.centers - self.sizes / 2, self.centers + self.sizes / 2], axis=1)

    @property
    def sides(self) -> Float[np.ndarray, " N"]:
        """Sides of the squares about them, in pixels."""
        return self.sizes.max(1)

    def turned(self, angles: Sequence[float]) -> Self:
        """All of them at each of these angles, in radians."""
        times = len(angles)
        return type(self)(
            np.tile(self.centers, (times, 1)),
            np.tile(self.sizes, (times, 1)),
            np.repeat(np.asarray(angles, float), len(self)),
            np.tile(self.scores, times),
        )

    def place(self, points: Float[np.ndarray, "N K 2"]) -> Float[np.ndarray, "N K 2"]:
        """Takes points of the squares about them, (0, 0) to (1, 1), to pixels of the photo, from its edges."""
        cos, sin = np.cos(self.angles), np.sin(self.angles)
        rotation = np.stack([cos, sin, -sin, cos], axis=1).reshape(-1, 2, 2)
        return (points - 0.5) * self.sides[:, None, None] @ rotation + self.centers[:, None]

    def scaled(self, factors: Float[np.ndarray, "N 2"]) -> Self:
        """The same upright rectangles in copies of the photo that are so many times as wide and high."""
        return dataclasses.replace(self, centers=self.centers * factors, sizes=self.sizes * factors)

    def moved(self, offsets: Float[np.ndarray, "N 4"]) -> Self:
        """The rectangles whose edges are so far from those of the squares about these, in widths of the square."""
        edges = offsets + np.array([0, 0, 1, 1])
        centers = self.place((edges[:, None, :2] + edges[:, None, 2:]) / 2)[:, 0]
        sizes = np.maximum((edges[:, 2:] - edges[:, :2]) * self.sides[:, None], 1)
        return dataclasses.replace(self, centers=centers, sizes=sizes)

    def strongest(self, overlap: float, *, of_smaller: bool = False) -> Int[np.ndarray, " M"]:
        """Those that don't overlap a stronger one that stays (non-maximum suppression), the strongest first.

        Args:
            overlap: how much two may share, in parts of their union.
            of_smaller: in parts of the smaller of the two instead, so that none lies within another.
        """
        left, top, right, bottom = self.boxes.T
        areas = (right - left) * (bottom - top)
        order, kept = np.argsort(-self.scores, kind="stable"), []
        while len(order):
            best, order = order[0], order[1:]
            kept.append(best)
            width = np.minimum(right[best], right[order]) - np.maximum(left[best], left[order])
            height = np.minimum(bottom[best], bottom[order]) - np.maximum(top[best], top[order])
            shared = np.maximum(width, 0) * np.maximum(height, 0)
            whole = np.minimum(areas[best], areas[order]) if of_smaller else areas[best] + areas[order] - shared
            order = order[shared <= overlap * whole]
        return np.array(kept, int)


def concatenated(parts: Sequence[Candidates]) -> Candidates:
    """All of the parts' candidates in one."""
    fields = (field.name for field in dataclasses.fields(Candidates))
    return Candidates(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))
