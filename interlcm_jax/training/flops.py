"""How many floating-point operations a function's matrix products and convolutions take, read from its jaxpr."""

import math
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params


def matrix_flops(jaxpr: Jaxpr) -> float:
    """FLOPs of all products and convolutions of a traced function, on all devices together.

    Unlike XLA's own count this one multiplies a loop's body by its passes and looks into Pallas' kernels, and it leaves
    out whatever runs on no matrix unit. What is rematerialized counts again. Of a choice (such as that of an
    implementation by platform) the dearest branch counts.
    """
    return sum(_flops(equation) for equation in jaxpr.eqns)


def _flops(equation: JaxprEqn) -> float:
    params = equation.params
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            return 2.0 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
        case "conv_general_dilated":
            return _convolution(equation)
        case "cond":
            return max(matrix_flops(branch.jaxpr) for branch in params["branches"])
    return _passes(equation.primitive.name, params) * sum(map(matrix_flops, jaxprs_in_params(params)))


def _passes(name: str, params: dict[str, Any]) -> int:
    """How often what an operation calls is run."""
    match name:
        case "scan":
            return params["length"]
        case "pallas_call":
            return math.prod(params["grid_mapping"].grid)
        case "shard_map":
            return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    return 1


def _convolution(equation: JaxprEqn) -> float:
    """Every tap of every output, those on padding too; zeros that the input is dilated with aren't multiplied."""
    kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec
    taps = math.prod(kernel) // kernel[numbers[0]]  # Input channels of a group times the kernel's area.
    return 2.0 * equation.outvars[0].aval.size * taps / math.prod(equation.params["lhs_dilation"])
