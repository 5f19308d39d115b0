"""Inline encryption of mlx5 devices, absent here."""

from typing import Any

from nicemu.pyverbs.base import PyverbsCM, PyverbsObject
from nicemu.pyverbs.providers._absent import absent

_CLASSES: dict[str, Any] = {
    "Mlx5CryptoLoginAttr": PyverbsObject,
    "Mlx5CryptoExtLoginAttr": PyverbsObject,
    "Mlx5DEKInitAttr": PyverbsObject,
    "Mlx5DEKAttr": PyverbsObject,
    "Mlx5CryptoAttr": PyverbsObject,
    "Mlx5DEK": PyverbsCM,
    "Mlx5CryptoLogin": PyverbsCM,
}

globals().update(absent(__name__, _CLASSES))


def __getattr__(name: str) -> Any:
    """For type checkers: what the table above makes. Another name raises AttributeError."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
