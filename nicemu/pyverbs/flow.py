"""Flow steering. Not there yet: EOPNOTSUPP."""

from __future__ import annotations

from nicemu.pyverbs._fields import U8, U16, U32, Field, Struct
from nicemu.pyverbs._resource import Unsupported
from nicemu.pyverbs.base import PyverbsObject, PyverbsRDMAErrno
from nicemu.pyverbs.libibverbs_enums import ibv_flow_attr_type
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError

__all__ = ["Flow", "FlowAction", "FlowAttr", "PyverbsError", "PyverbsRDMAErrno", "PyverbsRDMAError"]


class FlowAttr(Struct):
    """`ibv_flow_attr`: which packets a flow takes; `specs` say how they look."""

    __slots__ = {"specs": "What packets look like"}
    type = Field(U32, doc="An `ibv_flow_attr_type`")
    num_of_specs = Field(U8, doc="How many specs it has")
    priority = Field(U16, doc="Which of two rules comes first: the lower")
    port = Field(U8, doc="The port, from 1")
    flags = Field(U32, doc="`ibv_flow_flags`")

    def __init__(
        self,
        num_of_specs: int = 0,
        flow_type: int = ibv_flow_attr_type.IBV_FLOW_ATTR_NORMAL,
        priority: int = 0,
        port: int = 1,
        flags: int = 0,
    ) -> None:
        super().__init__(num_of_specs=num_of_specs, type=flow_type, priority=priority, port=port, flags=flags)
        self.specs: list[object] = []


class Flow(Unsupported):
    """A steering rule that brings packets to a QP."""

    __slots__ = ()


class FlowAction(PyverbsObject):
    """Something done to the packets of a flow."""

    __slots__ = ()
