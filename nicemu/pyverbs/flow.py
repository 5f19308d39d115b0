"""Flow steering: which frames a raw packet QP gets."""

from __future__ import annotations

from nicemu.pyverbs._fields import U8, U16, U32, Field, Struct, expect
from nicemu.pyverbs._qp import QP
from nicemu.pyverbs._resource import Resource
from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.libibverbs_enums import ibv_flow_attr_type
from nicemu.pyverbs.spec import Spec
from nicemu.uverbs import raw_messages as messages


class FlowAttr(Struct):
    """`ibv_flow_attr`: which frames a flow takes; append to `specs` what they look like."""

    __slots__ = ("_specs",)
    type = Field(U32)
    num_of_specs = Field(U8)
    priority = Field(U16)
    port = Field(U8)
    flags = Field(U32)

    def __init__(
        self,
        num_of_specs: int = 0,
        flow_type: int = ibv_flow_attr_type.IBV_FLOW_ATTR_NORMAL,
        priority: int = 0,
        port: int = 1,
        flags: int = 0,
    ) -> None:
        super().__init__(num_of_specs=num_of_specs, type=flow_type, priority=priority, port=port, flags=flags)
        self._specs: list[Spec] = []

    @property
    def specs(self) -> list[Spec]:
        """The specs, to append to."""
        return self._specs


class Flow(Resource):
    """A rule that brings frames to a raw packet QP, RSS or not; it is closed before its QP.

    PyverbsRDMAError: EINVAL (port, type, flags, fewer specs than `num_of_specs`, two specs of one layer), EOPNOTSUPP
    (inner specs, egress, another QP type), EPERM (not root), ENOMEM (out of rules).
    """

    __slots__ = ("_qp",)
    KIND = "flows"

    def __init__(self, qp: QP, flow_attr: FlowAttr) -> None:
        expect(qp, QP, "qp")
        expect(flow_attr, FlowAttr, "flow_attr")
        super().__init__()
        given, declared = len(flow_attr.specs), flow_attr.num_of_specs
        if declared != given:
            self.logger.warning(
                "The number of appended specs (%d) is not equal to the number of declared specs (%d)", given, declared
            )
        self._kernel = qp._kernel
        specs = b"".join(spec._image() for spec in flow_attr.specs)
        command = messages.CreateFlow(
            qp._opened(), flow_attr.type, flow_attr.priority, declared, flow_attr.port, flow_attr.flags, specs
        )
        self._handle = self._execute(command, "Flow creation failed")
        self._qp: QP | None = qp
        self._attach(qp)

    def _destroy(self, handle: int) -> None:
        self._execute(messages.DestroyFlow(handle), "Failed to destroy Flow")

    def _release(self) -> None:
        self._qp = None


class FlowAction(PyverbsObject):
    """Something done to the frames of a flow. Nothing makes one yet, here or in pyverbs."""

    __slots__ = ()
