"""Flow steering of mlx5 devices, absent here."""

from typing import Any

from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.flow import Flow, FlowAction
from nicemu.pyverbs.providers._absent import absent

_CLASSES: dict[str, Any] = {
    "Mlx5FlowMatchParameters": PyverbsObject,
    "Mlx5FlowMatcherAttr": PyverbsObject,
    "Mlx5FlowMatcher": PyverbsObject,
    "Mlx5PacketReformatFlowAction": FlowAction,
    "Mlx5FlowActionAttr": PyverbsObject,
    "Mlx5Flow": Flow,
}

globals().update(absent(__name__, _CLASSES))


def __getattr__(name: str) -> Any:
    """For type checkers: what the table above makes. Another name raises AttributeError."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
