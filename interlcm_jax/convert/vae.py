"""The VAE's weights in PyTorch: diffusers' `AutoencoderKL`, with today's attention names or those before 0.17."""

from interlcm_jax.convert.rules import CONV2D, LINEAR, Rule, Table

TABLE = Table(
    rules=(
        Rule(r"(.*\.to_(?:q|k|v|out\.0))\.kernel", r"\1.weight", LINEAR),
        Rule(r"(?!.*\.to_)(.*)\.kernel", r"\1.weight", CONV2D),
        Rule(r"(.*)\.scale", r"\1.weight"),
        Rule(r"(.*)\.bias", r"\1.bias"),
    ),
    renames=(
        (r"(attentions\.0)\.query\.", r"\1.to_q."),
        (r"(attentions\.0)\.key\.", r"\1.to_k."),
        (r"(attentions\.0)\.value\.", r"\1.to_v."),
        (r"(attentions\.0)\.proj_attn\.", r"\1.to_out.0."),
    ),
)
