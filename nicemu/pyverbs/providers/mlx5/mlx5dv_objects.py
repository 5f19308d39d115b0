"""The device's objects as structures of mlx5 devices, absent here."""

from typing import Any

from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.providers._absent import absent

_CLASSES: dict[str, Any] = {
    "Mlx5DvPD": PyverbsObject,
    "Mlx5DvCQ": PyverbsObject,
    "Mlx5DvQP": PyverbsObject,
    "Mlx5DvSRQ": PyverbsObject,
    "Mlx5DvObj": PyverbsObject,
}

globals().update(absent(__name__, _CLASSES))


def __getattr__(name: str) -> Any:
    """For type checkers: what the table above makes. Another name raises AttributeError."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
