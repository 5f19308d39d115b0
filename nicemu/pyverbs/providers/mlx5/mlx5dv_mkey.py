"""Memory keys with layouts and signatures of mlx5 devices, absent here."""

from typing import Any

from nicemu.pyverbs.base import PyverbsCM, PyverbsObject
from nicemu.pyverbs.providers._absent import absent

_CLASSES: dict[str, Any] = {
    "Mlx5SigCrc": PyverbsObject,
    "Mlx5SigT10Dif": PyverbsObject,
    "Mlx5SigBlockDomain": PyverbsObject,
    "Mlx5SigBlockAttr": PyverbsObject,
    "Mlx5SigErr": PyverbsObject,
    "Mlx5MkeyErr": PyverbsObject,
    "Mlx5MkeyConfAttr": PyverbsObject,
    "Mlx5MrInterleaved": PyverbsObject,
    "Mlx5Mkey": PyverbsCM,
}

globals().update(absent(__name__, _CLASSES))


def __getattr__(name: str) -> Any:
    """For type checkers: what the table above makes. Another name raises AttributeError."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
