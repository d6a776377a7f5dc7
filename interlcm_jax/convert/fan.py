"""The landmark network in PyTorch: `alignment_WFLW_4HG.pth` of AdaptiveWingLoss and facexlib."""

from interlcm_jax.convert.rules import CONV2D, Rule, Table

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# The parts of stack i are called like `m0`, but the block after its hourglass like `top_m_0`.
_PLACES = {
    r"(conv1\.conv|bn1|conv[2-4]\.(?:bn|conv)\d)": r"\1",
    r"stacks\.(\d+)\.(m|conv_last|bn_end|l|bl|al)((?:\..*)?)": r"\2\1\3",
    r"stacks\.(\d+)\.top_m\.(.*)": r"top_m_\1.\2",
}
# A `Sequential` of norm, rectifier and convolution.
_PROJECTION = r"(conv[2-4]\.downsample)"

TABLE = Table(
    rules=(
        *(Rule(rf"{ours}\.kernel", rf"{theirs}.weight", CONV2D) for ours, theirs in _PLACES.items()),
        # The convolutions' biases are among the norms'.
        *(
            Rule(rf"{ours}\.{leaf}", rf"{theirs}.{key}")
            for ours, theirs in _PLACES.items()
            for leaf, key in _NORM.items()
        ),
        Rule(rf"{_PROJECTION}\.conv\.kernel", r"\1.2.weight", CONV2D),
        *(Rule(rf"{_PROJECTION}\.bn\.{leaf}", rf"\1.0.{key}") for leaf, key in _NORM.items()),
    ),
    # As in `retinaface`.
    ignored=(r".*\.num_batches_tracked",),
)
