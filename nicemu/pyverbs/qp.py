"""Queue pairs and their attributes."""

from nicemu.pyverbs._ece import ECE
from nicemu.pyverbs._facade import publish
from nicemu.pyverbs._qp import QP
from nicemu.pyverbs._qp_attr import QPAttr, QPCap, QPInitAttr, QPInitAttrEx, _copy_caps
from nicemu.pyverbs._qp_ex import DataBuffer, QPEx
from nicemu.pyverbs.base import PyverbsRDMAErrno
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.utils import (
    access_flags_to_str,
    gid_str,
    mig_state_to_str,
    mtu_to_str,
    qp_state_to_str,
    qp_type_to_str,
)

__all__ = [
    "ECE",
    "QP",
    "DataBuffer",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "PyverbsUserError",
    "QPAttr",
    "QPCap",
    "QPEx",
    "QPInitAttr",
    "QPInitAttrEx",
    "_copy_caps",
    "access_flags_to_str",
    "gid_str",
    "mig_state_to_str",
    "mtu_to_str",
    "qp_state_to_str",
    "qp_type_to_str",
]

publish(__name__)
