"""The discriminator's weights in PyTorch: an `nn.Sequential` named `main`, as in taming-transformers."""

from interlcm_jax.convert.rules import CONV2D, Rule, Table

TABLE = Table(
    rules=(
        Rule(r"(main\.\d+)\.kernel", r"\1.weight", CONV2D),
        Rule(r"(main\.\d+)\.scale", r"\1.weight"),
        Rule(r"(main\.\d+)\.bias", r"\1.bias"),
        Rule(r"(main\.\d+)\.mean", r"\1.running_mean"),
        Rule(r"(main\.\d+)\.var", r"\1.running_var"),
    ),
    # A step counter that PyTorch only reads where the momentum is unset.
    ignored=(r"main\.\d+\.num_batches_tracked",),
)
