"""The options that say which faces of a photo are meant, for the commands that look for faces."""

import argparse
from typing import Any


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `faces.select.FaceChoice`."""
    add = parser.add_argument
    add(
        "--faces",
        default="all",
        metavar="all|largest|center|INDEX[,INDEX]",
        help="which faces of a photo: all (default), the largest, the one nearest the center, or numbers counted from "
        "left to right from 0, as interlcm restore --list-faces shows them with the same options",
    )
    add("--min-face", type=float, default=0, metavar="PX", help="no faces smaller than this in their photo, pixels")
    add("--max-faces", type=int, metavar="N", help="of each photo no more than the N largest faces")
    add("--detection-threshold", type=float, metavar="X", help="faces score more, 0 to 1 (default: the detector's own)")


def face_choice(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given, as arguments of `FaceChoice`."""
    return {name: getattr(arguments, name) for name in ("faces", "min_face", "max_faces", "detection_threshold")}
