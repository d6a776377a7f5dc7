"""RetinaFace's weights in PyTorch: `detection_Resnet50_Final.pth` of facexlib, its backbone named as torchvision's, and
`mobilenet0.25_Final.pth` of biubug6/Pytorch_Retinaface.
"""

from interlcm_jax.convert.rules import CONV2D, Rule, Table
from interlcm_jax.faces.retinaface import RESNET, RetinaFaceConfig

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_HEADS = {"class_heads": "ClassHead", "box_heads": "BboxHead", "landmark_heads": "LandmarkHead"}


def _conv_norm(path: str, conv: str, norm: str) -> tuple[Rule, ...]:
    """A convolution without bias and its normalization: our path, and PyTorch's names of the two."""
    norms = (Rule(rf"{path}\.norm\.{ours}", rf"{norm}.{theirs}") for ours, theirs in _NORM.items())
    return Rule(rf"{path}\.conv\.kernel", rf"{conv}.weight", CONV2D), *norms


# Convolution and norm are numbered neighbors conv1 and bn1 in the ResNet, and 0 and 1 of a `Sequential` elsewhere.
_RESNET = (
    *_conv_norm(r"(body\.(?:.*\.)?)conv(\d)", r"\1conv\2", r"\1bn\2"),
    *_conv_norm(r"(.*\.downsample)", r"\1.0", r"\1.1"),
)
# Both of a block's are in one `Sequential`, with rectifiers between them.
_MOBILENET = (
    *_conv_norm(r"(body\.stage\d\.\d)", r"\1.0", r"\1.1"),
    *_conv_norm(r"(body\.stage\d\.\d)\.depthwise", r"\1.0", r"\1.1"),
    *_conv_norm(r"(body\.stage\d\.\d)\.pointwise", r"\1.3", r"\1.4"),
)
_LEVELS = (
    *_conv_norm(r"((?:fpn|ssh\d)\..*)", r"\1.0", r"\1.1"),
    *(Rule(rf"{ours}\.(\d)\.kernel", rf"{theirs}.\1.conv1x1.weight", CONV2D) for ours, theirs in _HEADS.items()),
    *(Rule(rf"{ours}\.(\d)\.bias", rf"{theirs}.\1.conv1x1.bias") for ours, theirs in _HEADS.items()),
)


def table(config: RetinaFaceConfig) -> Table:
    """How the weights of a network of this config are named."""
    body = _RESNET if config.backbone == RESNET else _MOBILENET
    # Step counters, which PyTorch only reads where the momentum is unset, and doesn't ask a plain dict for.
    return Table((*body, *_LEVELS), ignored=(r".*\.num_batches_tracked",))
