"""Faces of a video followed from frame to frame, by where they are."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

# Frames for which a face may be lost within a track.
MAX_GAP = 8
# A face that is seen in fewer frames is most likely none: it would only flash up.
MIN_FRAMES = 4
# How far landmarks may be on average from where they are expected, in sizes of the face, and how much more for each
# frame that it was lost.
MAX_DISTANCE, MORE_DISTANCE = 0.8, 0.1
# Nothing grows or shrinks by more from one frame to the next.
MAX_GROWTH = 1.4
# How much of a face's motion is taken from its last step; the rest is what it was before.
LAST_STEP = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """One face through a video.

    Attributes:
        start: the first frame that it is in.
        members: for each of its frames, which of all faces found in the video it is; -1 where it was lost.
    """

    start: int
    members: Int[np.ndarray, " N"]

    @property
    def end(self) -> int:
        """The frame after its last one."""
        return self.start + len(self.members)

    @property
    def found(self) -> Bool[np.ndarray, " N"]:
        """In which of its frames it was found."""
        return self.members >= 0


@dataclasses.dataclass(eq=False)
class _Followed:
    """A track that may go on."""

    start: int
    members: list[int]
    landmarks: Float[np.ndarray, "5 2"]
    motion: Float[np.ndarray, "2"]
    lost: int = 0

    def expected(self) -> Float[np.ndarray, "5 2"]:
        """Where its landmarks are in the next frame if it moves on as it did."""
        return self.landmarks + self.motion * (self.lost + 1)

    def go_on(self, member: int, landmarks: Float[np.ndarray, "5 2"]) -> None:
        """Takes up the face that was found in the next frame."""
        step = (landmarks - self.landmarks).mean(0) / (self.lost + 1)
        fresh = len(self.members) == 1
        self.motion = step if fresh else LAST_STEP * step + (1 - LAST_STEP) * self.motion
        self.members += [-1] * self.lost + [member]
        self.landmarks, self.lost = landmarks, 0


def track_faces(
    counts: Sequence[int] | Int[np.ndarray, " F"],
    landmarks: Float[np.ndarray, "M 5 2"],
    cuts: Sequence[bool] | Bool[np.ndarray, " F"],
) -> list[Track]:
    """Follows the faces of a video: each goes on as the nearest face to where it would be at its last speed.

    Args:
        counts: how many faces were found in each frame.
        landmarks: of all of them, frame by frame, in pixels.
        cuts: which frames have nothing to do with the one before: tracks end there.

    Returns:
        The tracks, by their first frames. Those that are found in fewer than `MIN_FRAMES` frames, or fewer than a
        scene has, are left out.
    """
    going: list[_Followed] = []
    ended: list[Track] = []
    first, scene, scenes = 0, 0, _scene_lengths(cuts)
    for frame, count in enumerate(counts):
        if cuts[frame] and frame:
            ended += _kept(going, scenes[scene])
            going, scene = [], scene + 1
        members = np.arange(first, first + int(count))
        taken = _match(going, landmarks[members])
        for followed, member in taken.items():
            followed.go_on(int(members[member]), landmarks[members[member]])
        for followed in going:
            followed.lost += followed not in taken
        lost = [followed for followed in going if followed.lost > MAX_GAP]
        ended += _kept(lost, scenes[scene])
        going = [followed for followed in going if followed.lost <= MAX_GAP]
        new = sorted(set(range(int(count))) - set(taken.values()))
        going += [_Followed(frame, [int(members[i])], landmarks[members[i]], np.zeros(2)) for i in new]
        first += int(count)
    ended += _kept(going, scenes[scene] if scenes else 0)
    return sorted(ended, key=lambda track: (track.start, track.members[0]))


def face_size(landmarks: Float[np.ndarray, "5 2"]) -> float:
    """Pixels from eye to eye or from eyes to mouth, whichever is more: a turned face has the eyes closer."""
    down = landmarks[3:].mean(0) - landmarks[:2].mean(0)
    return float(max(np.linalg.norm(landmarks[1] - landmarks[0]), np.linalg.norm(down), 1e-6))


def _match(going: Sequence[_Followed], found: Float[np.ndarray, "K 5 2"]) -> dict[_Followed, int]:
    """The face that each track goes on with, the nearest pairs first."""
    pairs = []
    for number, followed in enumerate(going):
        expected, size = followed.expected(), face_size(followed.landmarks)
        for i, landmarks in enumerate(found):
            distance = np.linalg.norm(landmarks - expected, axis=1).mean() / size
            growth = face_size(landmarks) / size
            near = distance <= MAX_DISTANCE + MORE_DISTANCE * followed.lost
            if near and 1 / MAX_GROWTH <= growth <= MAX_GROWTH:
                pairs.append((float(distance), number, i))
    taken: dict[_Followed, int] = {}
    for _, number, i in sorted(pairs):
        if going[number] not in taken and i not in taken.values():
            taken[going[number]] = i
    return taken


def _scene_lengths(cuts: Sequence[bool] | Bool[np.ndarray, " F"]) -> list[int]:
    starts = [0, *(i for i, cut in enumerate(cuts) if cut and i), len(cuts)]
    return np.diff(starts).tolist()


def _kept(going: Sequence[_Followed], scene: int) -> list[Track]:
    """Finished tracks, of those that are seen long enough."""
    least = min(MIN_FRAMES, scene)
    tracks = [Track(followed.start, np.array(followed.members, np.int64)) for followed in going]
    return [track for track in tracks if track.found.sum() >= least]
