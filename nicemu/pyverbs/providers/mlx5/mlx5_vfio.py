"""Devices driven through VFIO of mlx5 devices, absent here."""

from typing import Any

from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.providers._absent import absent
from nicemu.pyverbs.providers.mlx5.mlx5dv import Mlx5Context

_CLASSES: dict[str, Any] = {
    "Mlx5VfioAttr": PyverbsObject,
    "Mlx5VfioContext": Mlx5Context,
}

globals().update(absent(__name__, _CLASSES))


def __getattr__(name: str) -> Any:
    """For type checkers: what the table above makes. Another name raises AttributeError."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
