"""Which faces of a video are restored, and where each is in every frame."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.detect import Face
from interlcm_jax.faces.select import ALL, large_faces, select_faces
from interlcm_jax.faces.steady import steady_places
from interlcm_jax.faces.track import Track, track_faces
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.photos.image import RestoreOptions, sharpness_bound
from interlcm_jax.photos.video.found import Found

# Frames over which a face that comes or goes within a scene is blended in or out.
FADE = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """A followed face in one frame.

    Attributes:
        track: which one it is.
        matrix: from pixels of the enlarged frame to the aligned face's.
        landmarks: in pixels of the enlarged frame.
        opacity: how much of it is pasted, 0 to 1.
        gray: whether the result has the frame's own colors.
    """

    track: int
    matrix: Float[np.ndarray, "2 3"]
    landmarks: Float[np.ndarray, "5 2"]
    opacity: float
    gray: bool


@dataclasses.dataclass(frozen=True, eq=False)
class FollowedFace:
    """A track that is restored: where it is, frame by frame."""

    start: int
    matrices: Float32[np.ndarray, "N 2 3"]
    landmarks: Float32[np.ndarray, "N 5 2"]
    opacity: Float32[np.ndarray, " N"]
    gray: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is restored in a video.

    Attributes:
        faces: those that are restored.
        left: how many are left as they are, having more detail than the model draws.
    """

    faces: Sequence[FollowedFace]
    left: int

    def __post_init__(self):
        starts = np.array([face.start for face in self.faces], np.int64)
        lengths = np.array([len(face.opacity) for face in self.faces], np.int64)
        object.__setattr__(self, "_spans", (starts, starts + lengths))

    def places(self, frame: int) -> list[Place]:
        """The faces of a frame."""
        starts, ends = self._spans
        places = []
        for track in np.flatnonzero((starts <= frame) & (frame < ends)).tolist():
            face = self.faces[track]
            i = frame - face.start
            matrix, landmarks = face.matrices[i].astype(float), face.landmarks[i].astype(float)
            places.append(Place(track, matrix, landmarks, float(face.opacity[i]), face.gray))
        return places


def plan_faces(
    found: Found,
    cuts: Bool[np.ndarray, " F"],
    shape: tuple[int, int],
    enlarged: float,
    config: ModelConfig,
    options: RestoreOptions,
) -> Plan:
    """Follows the faces, chooses among them, and steadies their places.

    All is decided for a face's whole track, so that nothing changes from frame to frame: a face is chosen where it is
    in most of its frames, it is left where the median of its detail says so, and it keeps its colors where most of
    its frames are gray.

    Args:
        found: of the whole video.
        cuts: frames that have nothing to do with the one before.
        shape: height and width of the enlarged frames.
        enlarged: how many times larger they are than the video's.
        config: the model's.
        options: what is done with the video.

    Raises:
        InterLCMError: no face has a number of `options.faces` in most of its frames.
    """
    tracks = _chosen(track_faces(found.counts, found.landmarks, cuts), found, shape, enlarged, options)
    bound = sharpness_bound(options, config)
    faces, left = [], 0
    for track in tracks:
        members = track.members[track.found]
        if np.median(found.details[members]) > bound:
            left += 1
            continue
        landmarks = found.landmarks[track.members].astype(float)
        matrices, points = steady_places(landmarks, track.found, config.image_size)
        faces.append(
            FollowedFace(
                track.start,
                matrices.astype(np.float32),
                points.astype(np.float32),
                _opacity(track, cuts),
                _keeps_colors(found.gray[track.start : track.end], config, options),
            )
        )
    return Plan(faces, left)


def _chosen(
    tracks: Sequence[Track], found: Found, shape: tuple[int, int], enlarged: float, options: RestoreOptions
) -> list[Track]:
    """The tracks that are chosen in more than half of their frames, each frame by itself as a photo."""
    if options.faces == ALL and not options.min_face and options.max_faces is None:
        return list(tracks)
    frame = np.broadcast_to(np.uint8(0), (*shape, 3))
    votes = np.zeros(len(tracks), int)
    by_frame: dict[int, list[tuple[int, Face]]] = {}
    for number, track in enumerate(tracks):
        for i, member in enumerate(track.members.tolist()):
            if member >= 0:
                by_frame.setdefault(track.start + i, []).append((number, found.face(member)))
    for entries in by_frame.values():
        candidates = large_faces([face for _, face in entries], options, enlarged)
        meant = select_faces(candidates, frame, options.faces, missing_ok=True)
        votes[[number for number, face in entries if any(face is one for one in meant)]] += 1
    chosen = [track for track, count in zip(tracks, votes, strict=True) if 2 * count > track.found.sum()]
    if tracks and not chosen and options.faces[0].isdigit():
        raise InterLCMError(f"no face is number {options.faces}, from left to right, in most of its frames")
    return chosen


def _opacity(track: Track, cuts: Bool[np.ndarray, " F"]) -> Float32[np.ndarray, " N"]:
    """1, but where the face comes or goes within a scene, which its paste would do at once."""
    count = len(track.members)
    opacity = np.ones(count, np.float32)
    ramp = np.arange(1, FADE + 1, dtype=np.float32) / (FADE + 1)
    length = min(FADE, count)
    if track.start and not cuts[track.start]:
        opacity[:length] = np.minimum(opacity[:length], ramp[:length])
    if track.end < len(cuts) and not cuts[track.end]:
        opacity[count - length :] = np.minimum(opacity[count - length :], ramp[:length][::-1])
    return opacity


def _keeps_colors(gray: Bool[np.ndarray, " N"], config: ModelConfig, options: RestoreOptions) -> bool:
    if options.gray != "auto":
        return options.gray == "keep"
    return config.task != "colorization" and bool(2 * gray.sum() > len(gray))
