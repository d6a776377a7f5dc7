"""What a traced program is made of."""

from collections.abc import Iterator

import jax.extend


def equations(jaxpr: jax.extend.core.Jaxpr, *, into_scans: bool = True) -> Iterator[jax.extend.core.JaxprEqn]:
    """All equations, those of inner functions and loops included."""
    for equation in jaxpr.eqns:
        yield equation
        if into_scans or equation.primitive.name != "scan":
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from equations(inner, into_scans=into_scans)


def recomputations(jaxpr: jax.extend.core.Jaxpr) -> int:
    """How many parts are computed again in the backward pass."""
    return sum(equation.primitive.name in ("checkpoint", "remat2") for equation in equations(jaxpr))
