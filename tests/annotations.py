"""What `conftest.py` checks the package's annotations with: beartype, those that tell an array's shape."""

from collections.abc import Callable
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

# To beartype an int is no float.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable) -> Callable:
    """The function, checked; arguments of other types are left alone, so that tests may pass doubles of networks."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if _tells_shape(hint)}
    return _check(function)


def _tells_shape(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_tells_shape, get_args(hint)))
