"""Queue pairs and their attributes."""

from nicemu.pyverbs._qp import QP
from nicemu.pyverbs._qp_attr import ECE, QPAttr, QPCap, QPInitAttr, QPInitAttrEx, _copy_caps
from nicemu.pyverbs._qp_ex import DataBuffer, QPEx

__all__ = ["ECE", "QP", "DataBuffer", "QPAttr", "QPCap", "QPEx", "QPInitAttr", "QPInitAttrEx", "_copy_caps"]
