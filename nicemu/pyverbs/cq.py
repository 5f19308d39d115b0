"""Completion channels, completion queues and work completions."""

from nicemu.pyverbs._cq import CQ, CompChannel
from nicemu.pyverbs._cq_ex import CQEX, CqInitAttrEx, PollCqAttr, WcTmInfo
from nicemu.pyverbs._text import flag_names as flags_to_str
from nicemu.pyverbs._wc import (
    WC,
    cqe_flags_to_str,
    cqe_opcode_to_str,
    cqe_status_to_str,
    create_wc_flags_to_str,
)

__all__ = [
    "CQ",
    "CQEX",
    "WC",
    "CompChannel",
    "CqInitAttrEx",
    "PollCqAttr",
    "WcTmInfo",
    "cqe_flags_to_str",
    "cqe_opcode_to_str",
    "cqe_status_to_str",
    "create_wc_flags_to_str",
    "flags_to_str",
]
