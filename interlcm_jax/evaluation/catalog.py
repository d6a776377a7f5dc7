"""The metrics: each under a name that stands for one way of computing it.

Another metric is one more entry here, over a measure in `per_image.py` and, if it has a network, weights in
`weights.py`; protocols (`protocols.py`) then name it.
"""

import numpy as np

from interlcm_jax.evaluation import per_image
from interlcm_jax.evaluation.metric import Metric
from interlcm_jax.metrics.frechet import Statistics, frechet_distance
from interlcm_jax.metrics.identity import IDENTICAL
from interlcm_jax.metrics.image import decibels


def _same(rows: np.ndarray) -> np.ndarray:
    return rows


_BASICSR = "BasicSR, basicsr/metrics/psnr_ssim.py"
_WINDOW = "Gaussian window of 11 pixels, sigma 1.5, whole windows only, population covariance"
_VQFR = "VQFR, metric_paper/calculate_psnr_ssim.py (correct_mean_var is on by default)"
_MATCHED = "each color channel of the restored image first shifted and scaled to the reference's mean and deviation"
_FID = "Inception-v3 of pytorch-fid, RGB in [-1, 1], bilinear to 299 pixels"
_DAEFR = "RestoreFormer++ and DAEFR, scripts/metrics/cal_psnr_ssim.py"

_ALL = (
    Metric(
        "psnr",
        "PSNR",
        "higher",
        "one error over R, G and B in 8 bits, no border cropped; the mean of the images' decibels",
        _BASICSR,
        (per_image.ERROR,),
        decibels,
        unit="dB",
        digits=2,
    ),
    Metric(
        "psnr-y",
        "PSNR",
        "higher",
        "of BT.601's luma on its studio range, not rounded, no border cropped",
        f"{_BASICSR} (test_y_channel)",
        (per_image.ERROR_Y,),
        decibels,
        unit="dB",
        digits=2,
    ),
    Metric(
        "psnr-matched",
        "PSNR",
        "higher",
        f"{_MATCHED}, which lifts it; then over R, G and B, not rounded or clipped, no border cropped",
        _VQFR,
        (per_image.ERROR_MATCHED,),
        decibels,
        unit="dB",
        digits=2,
    ),
    Metric(
        "ssim",
        "SSIM",
        "higher",
        f"mean over R, G and B in 8 bits, no border cropped; {_WINDOW}",
        _BASICSR,
        (per_image.SSIM,),
        _same,
    ),
    Metric(
        "ssim-y",
        "SSIM",
        "higher",
        f"of BT.601's luma on its studio range, not rounded; {_WINDOW}",
        f"{_BASICSR} (test_y_channel)",
        (per_image.SSIM_Y,),
        _same,
    ),
    Metric(
        "ssim-matched",
        "SSIM",
        "higher",
        f"{_MATCHED}; then over R, G and B; {_WINDOW}",
        _VQFR,
        (per_image.SSIM_MATCHED,),
        _same,
    ),
    Metric(
        "ssim-pyiqa",
        "SSIM",
        "higher",
        f"of YIQ's luma in whole levels, opposed structures count 0; {_WINDOW}",
        "pyiqa's `ssim` (its `ssimc` is the one over colors)",
        (per_image.SSIM_PYIQA,),
        _same,
    ),
    Metric(
        "lpips",
        "LPIPS",
        "lower",
        "VGG16, version 0.1; RGB in [-1, 1]",
        "VQFR, metric_paper/calculate_lpips.py; pyiqa's `lpips-vgg` (its `lpips` is AlexNet's)",
        (per_image.LPIPS,),
        _same,
    ),
    Metric(
        "lpips-bgr",
        "LPIPS",
        "lower",
        "VGG16, version 0.1; channels in the order B, G, R, in [-1, 1]",
        f"{_DAEFR}: the second of the two values it prints",
        (per_image.LPIPS_BGR,),
        _same,
    ),
    Metric(
        "onet",
        "O-Net",
        "lower",
        "distance of features of unit length of MTCNN's O-Net at each position, as LPIPS without learned weights",
        "this package, metrics/onet.py: no published number is in it; its weights come with the package mtcnn",
        (per_image.ONET,),
        _same,
    ),
    Metric(
        "sharpness",
        "sharpness",
        "higher",
        "variance of the Laplacian of BT.601's luma in levels of 255, no pixel of the border; noise counts as well",
        "Pech-Pacheco et al. 2000; OpenCV's Laplacian of aperture 1",
        (per_image.SHARPNESS,),
        _same,
        digits=1,
    ),
    Metric(
        "fid-ffhq",
        "FID",
        "lower",
        f"{_FID}; against the statistics of 50,000 FFHQ faces; only sets of equal counts compare",
        "BasicSR, docs/Metrics.md; VQFR",
        (per_image.INCEPTION,),
        set_score=lambda ffhq, restored: frechet_distance(Statistics.of(restored), ffhq),
        constant="ffhq",
        least_images=2,
        digits=2,
    ),
    Metric(
        "fid-hq",
        "FID (HQ)",
        "lower",
        f"{_FID}; against the set's own originals; only sets of equal counts compare",
        "pytorch-fid; OSDFace's second column",
        (per_image.INCEPTION, per_image.INCEPTION_HQ),
        set_score=lambda restored, hq: frechet_distance(Statistics.of(restored), Statistics.of(hq)),
        least_images=2,
        digits=2,
    ),
    Metric(
        "deg",
        "Deg",
        "lower",
        "angle between ArcFace (ResNet-18) embeddings of whole gray faces at 128 pixels; pairs below 1 are out",
        "VQFR, metric_paper/calculate_cos_dist.py; PMRF, OSDFace",
        (per_image.DEG,),
        _same,
        least_score=IDENTICAL,
        unit="degrees",
        digits=2,
    ),
    Metric(
        "similarity",
        "identity",
        "higher",
        "cosine of Deg's angle, of all pairs",
        "the network of VQFR's Deg; papers' IDS differ",
        (per_image.SIMILARITY,),
        _same,
    ),
    Metric(
        "ida",
        "IDA",
        "lower",
        "angle between embeddings of GFPGAN's ArcFace (ResNet-18), in radians; gray by RGB's weights on BGR",
        "RestoreFormer++ and DAEFR, scripts/metrics",
        (per_image.IDA,),
        _same,
        unit="radians",
    ),
    Metric(
        "lmd",
        "LMD",
        "lower",
        "mean distance of 98 landmarks (AdaptiveWing's FAN) in pixels of a face of 512",
        "VQFR, metric_paper/calculate_landmark_distance.py",
        (per_image.LMD,),
        _same,
        unit="pixels",
        digits=3,
    ),
    Metric(
        "niqe",
        "NIQE",
        "lower",
        "luma in whole levels, no border cropped, blocks of 96 pixels",
        "BasicSR, basicsr/metrics/niqe.py",
        (per_image.NIQE,),
        _same,
        digits=3,
    ),
    Metric(
        "musiq",
        "MUSIQ",
        "higher",
        "the KonIQ weights; native size, 384 and 224 pixels; arithmetic and resizing as pyiqa's",
        "pyiqa's `musiq`",
        (per_image.MUSIQ,),
        _same,
        digits=2,
    ),
)
METRICS = {metric.name: metric for metric in _ALL}
