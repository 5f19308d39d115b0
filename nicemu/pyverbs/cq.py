"""Completion channels, completion queues and work completions."""

from nicemu.pyverbs._cq import CQ, CompChannel
from nicemu.pyverbs._cq_ex import CQEX, CqInitAttrEx, PollCqAttr, WcTmInfo
from nicemu.pyverbs._facade import publish
from nicemu.pyverbs._text import flag_names as flags_to_str
from nicemu.pyverbs._wc import (
    WC,
    cqe_flags_to_str,
    cqe_opcode_to_str,
    cqe_status_to_str,
    create_wc_flags_to_str,
)
from nicemu.pyverbs.base import PyverbsRDMAErrno
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError

__all__ = [
    "CQ",
    "CQEX",
    "WC",
    "CompChannel",
    "CqInitAttrEx",
    "PollCqAttr",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "WcTmInfo",
    "cqe_flags_to_str",
    "cqe_opcode_to_str",
    "cqe_status_to_str",
    "create_wc_flags_to_str",
    "flags_to_str",
]

publish(__name__)
