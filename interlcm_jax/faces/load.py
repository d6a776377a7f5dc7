"""The detector that goes with a model folder."""

from pathlib import Path

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.detect import Detector
from interlcm_jax.faces.mtcnn_detector import MTCNN
from interlcm_jax.faces.retinaface_detector import load_retinaface

DETECTORS = ("mtcnn", "retinaface")


def load_detector(folder: Path, name: str | None = None) -> Detector:
    """The detector of this name; None is RetinaFace where the model folder holds it, else MTCNN.

    Raises:
        InterLCMError: RetinaFace is asked for and not in the folder, or there is no such detector.
        WeightsError: the folder's RetinaFace doesn't fit, or isn't whole.
    """
    if name not in (None, *DETECTORS):
        raise InterLCMError(f"detector is {name!r}, but must be one of {', '.join(DETECTORS)}")
    retinaface = None if name == "mtcnn" else load_retinaface(folder)
    if name == "retinaface" and retinaface is None:
        raise InterLCMError(
            f"{folder}: no RetinaFace in this model folder; interlcm add --retinaface FILE puts it there"
        )
    return retinaface or MTCNN()
