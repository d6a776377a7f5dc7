"""How diffusers names the weights of UNet2DConditionModel and ControlNetModel."""

from interlcm_jax.convert.rules import CONV2D, LINEAR, Rule, Table

# Linear layers by the ends of their names; every other kernel is a convolution's.
_LINEAR = r".*\.(?:linear_\d|cond_proj|time_emb_proj|to_[qkv]|to_out\.0)"

_SHARED = (
    Rule(rf"({_LINEAR})\.kernel", r"\1.weight", LINEAR),
    Rule(r"(.*\.ff)\.proj\.kernel", r"\1.net.0.proj.weight", LINEAR),
    Rule(r"(.*\.ff)\.proj\.bias", r"\1.net.0.proj.bias"),
    Rule(r"(.*\.ff)\.out\.kernel", r"\1.net.2.weight", LINEAR),
    Rule(r"(.*\.ff)\.out\.bias", r"\1.net.2.bias"),
    Rule(rf"(?!{_LINEAR}\.)(?!.*\.ff\.)(.*)\.kernel", r"\1.weight", CONV2D),
    Rule(r"(?!.*\.ff\.)(.*)\.bias", r"\1.bias"),
    Rule(r"(.*)\.scale", r"\1.weight"),
)

TABLE = Table(_SHARED)
