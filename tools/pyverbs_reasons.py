"""Why `nicemu.pyverbs` differs from the real package where it does: the last column of docs/pyverbs.md."""

_FLAT = "the flat layout of older releases, beside that of 59"
_LENIENT = "None may be left out here"

REASONS = {
    ("cm_enums", "(module)"): _FLAT,
    ("enums", "(module)"): _FLAT,
    ("cq", "CQEX.__init__"): _LENIENT,
    ("cq", "CQEX.start_poll"): _LENIENT,
    ("cq", "CQEX.resize"): "an addition: in C an extended CQ can be resized as well",
    ("device", "DMMR"): "an import of the real module's own; it is in `pyverbs.mr`",
    ("device", "speed_to_str"): "release 44 calls it with one argument",
    ("device", "FdArr.__init__"): "the same to a caller: an empty list that nobody can change",
}
"""By module and name; the name of a class stands for all its members."""

BEHAVIOUR = (
    "Calls on a closed object raise PyverbsUserError; the real package follows a null pointer.",
    "An int too large for a member of 8 or 16 bits raises OverflowError everywhere; the real WC cuts it off.",
    "`send_cq`, `recv_cq` and an SRQ's `cq` refuse what is no CQ when they are set, not when the QP is made.",
    "A negative `num_sge` of a request raises OverflowError at once.",
    "`QueryDeviceExInput` and `str()` of a FdArr work; in 59 both raise.",
    "`translate_event_type(16)` has no stray dot, `qp_state_to_str` names the unknown state.",
    "A MAC address of a flow whose first byte is 0 reads as it was given, not as an empty text.",
    "Texts of OverflowError and AttributeError may name a C type or class in other words.",
    "`pyverbs.cmid` is complete as an interface: ConnParam, AddrInfo and JoinMCAttrEx hold what they are given, and "
    "whatever needs a connection raises PyverbsRDMAError EOPNOTSUPP at once.",
    "`pyverbs.providers.*` import; their ..Attr classes hold what they are given, anything else raises "
    "PyverbsUserError. Only `Mlx5Context.device_timestamp_to_ns` works, on any context.",
)
"""What differs on purpose where the names are the same; seen by `compare_pyverbs.py --installed` on a compiled 59."""


def reason(module: str, name: str) -> str:
    """The reason for one difference, or nothing."""
    return REASONS.get((module, name)) or REASONS.get((module, name.partition(".")[0]), "")
