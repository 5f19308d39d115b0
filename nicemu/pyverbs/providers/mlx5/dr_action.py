"""Direct rules: actions of mlx5 devices, absent here."""

from typing import Any

from nicemu.pyverbs.base import PyverbsCM
from nicemu.pyverbs.providers._absent import absent

_CLASSES: dict[str, Any] = {
    "DrAction": PyverbsCM,
    "DrActionQp": "DrAction",
    "DrActionFlowCounter": "DrAction",
    "DrActionDrop": "DrAction",
    "DrActionModify": "DrAction",
    "DrActionTag": "DrAction",
    "DrActionDestTable": "DrAction",
    "DrActionPopVLan": "DrAction",
    "DrActionPushVLan": "DrAction",
    "DrActionDestAttr": PyverbsCM,
    "DrActionDestArray": "DrAction",
    "DrActionDefMiss": "DrAction",
    "DrActionVPort": "DrAction",
    "DrActionIBPort": "DrAction",
    "DrActionDestTir": "DrAction",
    "DrActionPacketReformat": "DrAction",
    "DrFlowSamplerAttr": PyverbsCM,
    "DrActionFlowSample": "DrAction",
    "DrFlowMeterAttr": PyverbsCM,
    "DrActionFlowMeter": "DrAction",
}
ACTION_SIZE = 8

globals().update(absent(__name__, _CLASSES))


def __getattr__(name: str) -> Any:
    """For type checkers: what the table above makes. Another name raises AttributeError."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
