"""The face recognizers in PyTorch: `resnet18_110.pth` of arcface-pytorch and `arcface_resnet18.pth` of GFPGAN."""

from interlcm_jax.convert.rules import CONV2D, LINEAR, Rule, Table

TABLE = Table(
    rules=(
        Rule(r"((?:.*\.)?conv\d|.*\.downsample\.0)\.kernel", r"\1.weight", CONV2D),
        Rule(r"(fc5|.*\.se\.fc\.\d)\.kernel", r"\1.weight", LINEAR),
        Rule(r"(.*)\.slope", r"\1.weight"),
        Rule(r"(.*)\.scale", r"\1.weight"),
        Rule(r"(.*)\.bias", r"\1.bias"),
        Rule(r"(.*)\.mean", r"\1.running_mean"),
        Rule(r"(.*)\.var", r"\1.running_var"),
    ),
    # As in `retinaface`.
    ignored=(r".*\.num_batches_tracked",),
)
