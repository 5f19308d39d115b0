"""Direct verbs of mlx5 devices, absent here."""

from typing import Any

from nicemu.pyverbs._fields import U64, expect
from nicemu.pyverbs.base import PyverbsCM, PyverbsObject
from nicemu.pyverbs.cq import CQEX
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.providers._absent import absent
from nicemu.pyverbs.qp import QPEx

_CLASSES: dict[str, Any] = {
    "Mlx5DVPortAttr": PyverbsObject,
    "Mlx5DVContextAttr": PyverbsObject,
    "Mlx5DevxObj": PyverbsCM,
    "Mlx5Context": Context,
    "Mlx5DVContext": PyverbsObject,
    "Mlx5DCIStreamInitAttr": PyverbsObject,
    "Mlx5DVDCInitAttr": PyverbsObject,
    "Mlx5DVQPInitAttr": PyverbsObject,
    "Mlx5QP": QPEx,
    "Mlx5DVCQInitAttr": PyverbsObject,
    "Mlx5CQ": CQEX,
    "Mlx5VAR": PyverbsObject,
    "Mlx5PP": PyverbsObject,
    "Mlx5UAR": PyverbsObject,
    "Mlx5DmOpAddr": PyverbsCM,
    "WqeSeg": PyverbsCM,
    "WqeCtrlSeg": "WqeSeg",
    "WqeDataSeg": "WqeSeg",
    "Wqe": PyverbsCM,
    "Mlx5UMEM": PyverbsCM,
    "Mlx5Cqe64": PyverbsObject,
    "Mlx5DevxMsiVector": PyverbsCM,
    "Mlx5DevxEq": PyverbsCM,
}
_FUNCTIONS = (
    "qpts_to_str",
    "bitmask_to_str",
    "context_comp_mask_to_str",
    "context_flags_to_str",
    "swp_to_str",
    "cqe_comp_to_str",
    "tunnel_offloads_to_str",
    "dc_type_to_str",
    "qp_comp_mask_to_str",
    "qp_create_flags_to_str",
    "send_ops_flags_to_str",
)

globals().update(absent(__name__, _CLASSES, _FUNCTIONS))


def device_timestamp_to_ns(context: Context, device_timestamp: int) -> int:
    """Ticks of the clock of `context`, of any vendor (`hca_core_clock` kHz), as nanoseconds."""
    expect(context, Context, "context")
    return int(U64(device_timestamp) * 1_000_000 // context.query_device_ex().hca_core_clock)


# Asks nothing of the device but its clock's rate, and is called by programs that are generic otherwise
globals()["Mlx5Context"].device_timestamp_to_ns = staticmethod(device_timestamp_to_ns)


def __getattr__(name: str) -> Any:
    """For type checkers: what the table above makes. Another name raises AttributeError."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
