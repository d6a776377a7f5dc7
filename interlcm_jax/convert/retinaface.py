"""RetinaFace's weights in PyTorch: `detection_Resnet50_Final.pth` of facexlib, its backbone named as torchvision's."""

from interlcm_jax.convert.rules import CONV2D, Rule, Table

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_HEADS = {"class_heads": "ClassHead", "box_heads": "BboxHead", "landmark_heads": "LandmarkHead"}
# Convolution and norm are numbered neighbors conv1 and bn1 in the backbone, and 0 and 1 of a `Sequential` elsewhere.
_NUMBERED, _SEQUENTIAL = r"(body\.(?:.*\.)?)conv(\d)", r"((?:fpn|ssh\d)\..*|.*\.downsample)"

TABLE = Table(
    rules=(
        Rule(rf"{_NUMBERED}\.conv\.kernel", r"\1conv\2.weight", CONV2D),
        Rule(rf"{_SEQUENTIAL}\.conv\.kernel", r"\1.0.weight", CONV2D),
        *(Rule(rf"{_NUMBERED}\.norm\.{ours}", rf"\1bn\2.{theirs}") for ours, theirs in _NORM.items()),
        *(Rule(rf"{_SEQUENTIAL}\.norm\.{ours}", rf"\1.1.{theirs}") for ours, theirs in _NORM.items()),
        *(Rule(rf"{ours}\.(\d)\.kernel", rf"{theirs}.\1.conv1x1.weight", CONV2D) for ours, theirs in _HEADS.items()),
        *(Rule(rf"{ours}\.(\d)\.bias", rf"{theirs}.\1.conv1x1.bias") for ours, theirs in _HEADS.items()),
    ),
    # Step counters, which PyTorch only reads where the momentum is unset, and doesn't ask a plain dict for.
    ignored=(r".*\.num_batches_tracked",),
)
