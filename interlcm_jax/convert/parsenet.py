"""ParseNet's weights in PyTorch: `parsing_parsenet.pth` of facexlib."""

from interlcm_jax.convert.rules import CONV2D, Rule, Table

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

TABLE = Table(
    rules=(
        Rule(r"(.*)\.conv\.kernel", r"\1.conv2d.weight", CONV2D),
        Rule(r"(.*)\.conv\.bias", r"\1.conv2d.bias"),
        *(Rule(rf"(.*)\.norm\.{ours}", rf"\1.norm.norm.{theirs}") for ours, theirs in _NORM.items()),
    ),
    # As in `retinaface`.
    ignored=(r".*\.num_batches_tracked",),
)
