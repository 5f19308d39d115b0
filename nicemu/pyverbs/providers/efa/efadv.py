"""Direct verbs of efa devices, absent here."""

from typing import Any

from nicemu.pyverbs.addr import AH
from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.cq import CQEX
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.providers._absent import absent
from nicemu.pyverbs.qp import QP, QPEx

_CLASSES: dict[str, Any] = {
    "EfaContext": Context,
    "EfaDVDeviceAttr": PyverbsObject,
    "EfaDVAHAttr": PyverbsObject,
    "EfaAH": AH,
    "SRDQP": QP,
    "EfaQPInitAttr": PyverbsObject,
    "SRDQPEx": QPEx,
    "EfaDVCQInitAttr": PyverbsObject,
    "EfaCQ": CQEX,
    "EfaDVMRAttr": PyverbsObject,
    "EfaMR": MR,
}
_FUNCTIONS = (
    "dev_cap_to_str",
    "bitmask_to_str",
)

globals().update(absent(__name__, _CLASSES, _FUNCTIONS))


def __getattr__(name: str) -> Any:
    """For type checkers: what the table above makes. Another name raises AttributeError."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
