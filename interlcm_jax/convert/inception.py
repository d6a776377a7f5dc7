"""FID's Inception-v3 in PyTorch: `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid, named as torchvision's."""

from interlcm_jax.convert.rules import CONV2D, LINEAR, Rule, Table

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

TABLE = Table(
    rules=(
        Rule(r"(.*)\.conv\.kernel", r"\1.conv.weight", CONV2D),
        *(Rule(rf"(.*)\.bn\.{ours}", rf"\1.bn.{theirs}") for ours, theirs in _NORM.items()),
        Rule(r"fc\.kernel", "fc.weight", LINEAR),
        Rule(r"fc\.bias", "fc.bias"),
    ),
    # As in `retinaface`.
    ignored=(r".*\.num_batches_tracked",),
)
