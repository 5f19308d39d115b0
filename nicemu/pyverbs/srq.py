"""Shared receive queues: basic ones, those of XRC, and with tag matching."""

from __future__ import annotations

import errno
from typing import Any

from nicemu.abi.rings import Doorbell, power_of_two, srq_stride
from nicemu.abi.verbs import SrqType
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._cq import CompletionQueue
from nicemu.pyverbs._cq_ex import CQEX
from nicemu.pyverbs._facade import publish
from nicemu.pyverbs._fields import U32, Constant, Field, Struct, expect
from nicemu.pyverbs._posting import post_chain, refuse
from nicemu.pyverbs._queues import SendQueue, SharedQueue
from nicemu.pyverbs._resource import Resource
from nicemu.pyverbs._ring_memory import ResourceType, RingMemory, allocate, has_allocator
from nicemu.pyverbs._tag_ops import OpsWr, TagQueue
from nicemu.pyverbs.base import PyverbsRDMAErrno
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import ibv_srq_init_attr_mask, ibv_srq_type
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError
from nicemu.pyverbs.wr import RecvWR
from nicemu.pyverbs.xrcd import XRCD
from nicemu.uverbs import srq_messages as messages

__all__ = [
    "SRQ",
    "OpsWr",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "SrqAttr",
    "SrqInitAttr",
    "SrqInitAttrEx",
]

publish(__name__)


class SrqAttr(Struct):
    """`ibv_srq_attr`: depth, SGEs per request, and the level that raises an event."""

    __slots__ = ()
    max_wr = Field(U32, doc="Requests that may be outstanding")
    max_sge = Field(U32, doc="SGEs of a request")
    srq_limit = Field(U32, doc="Requests left that raise an event when there are fewer; 0 is never")

    def __init__(self, max_wr: int = 100, max_sge: int = 1, srq_limit: int = 0) -> None:
        super().__init__(max_wr=max_wr, max_sge=max_sge, srq_limit=srq_limit)


class SrqInitAttr(Struct):
    """`ibv_srq_init_attr`, read only: what `attr` has."""

    __slots__ = ()
    max_wr = Constant(doc="Requests that may be outstanding")
    max_sge = Constant(doc="SGEs of a request")
    srq_limit = Constant(doc="Requests left that raise an event when there are fewer; 0 is never")

    def __init__(self, attr: SrqAttr | None = None) -> None:
        expect(attr, SrqAttr, "attr", optional=True)
        super().__init__()
        if attr is not None:
            self._values.update(attr._values)


class SrqInitAttrEx(SrqAttr):
    """`ibv_srq_init_attr_ex`. `comp_mask` says which of the members after it count."""

    __slots__ = ("_cq", "_pd", "_xrcd")
    comp_mask = Field(U32, doc="Which members count, as `ibv_srq_init_attr_mask`")
    srq_type = Field(U32, enum=ibv_srq_type, doc="An `ibv_srq_type`")
    max_num_tags = Field(U32, doc="Tags that may wait")
    max_ops = Field(U32, doc="Outstanding requests on the list of tags")

    def __init__(self, max_wr: int = 100, max_sge: int = 1, srq_limit: int = 0) -> None:
        super().__init__(max_wr, max_sge, srq_limit)
        self._pd: PD | None = None
        self._xrcd: XRCD | None = None
        self._cq: CompletionQueue | None = None

    @property
    def pd(self) -> PD | None:
        """The protection domain."""
        return self._pd

    @pd.setter
    def pd(self, val: PD | None) -> None:
        expect(val, PD, "val", optional=True)
        self._pd = val

    @property
    def xrcd(self) -> XRCD | None:
        """The XRC domain, of an XRC SRQ."""
        return self._xrcd

    @xrcd.setter
    def xrcd(self, val: XRCD | None) -> None:
        expect(val, XRCD, "val", optional=True)
        self._xrcd = val

    @property
    def cq(self) -> CompletionQueue | None:
        """Where all receives of an XRC SRQ complete: a `CQ` or `CQEX`. Of a TM-SRQ, a `CQEX`: operations as well."""
        return self._cq

    @cq.setter
    def cq(self, val: CompletionQueue | None) -> None:
        expect(val, CompletionQueue, "val", optional=True)
        self._cq = val


class SRQ(Resource):
    """A shared receive queue, made from a PD with a SrqInitAttr or from a Context with a SrqInitAttrEx.

    PyverbsRDMAError: EINVAL (depth, an XRC SRQ without domain or CQ, a TM-SRQ without extended CQ or of a size that the
    device has not), ENOMEM, EOPNOTSUPP (what the device does not have).
    """

    __slots__ = ("_memory", "_number", "_parents", "_queue", "_tags")
    KIND = "srqs"
    CHILDREN = ("qps",)

    def __init__(self, creator: PD | Context, attr: SrqInitAttr | SrqInitAttrEx) -> None:
        super().__init__()
        if isinstance(creator, PD):
            expect(attr, SrqInitAttr, "init_attr")
            parents: tuple[Any, ...] = creator, None, None
            kind: int = SrqType.BASIC
            matching = 0, 0
        elif isinstance(creator, Context):
            expect(attr, SrqInitAttrEx, "init_attr_ex")
            kind, parents = self._checked_parents(attr)  # type: ignore[arg-type]
            matching = (attr.max_num_tags, attr.max_ops) if kind == SrqType.TM else (0, 0)  # type: ignore[union-attr]
        else:
            raise PyverbsRDMAError("Srq needs either Context or PD for creation")
        self._kernel = creator._kernel
        pd, xrcd, cq = (parent._opened() if parent is not None else 0 for parent in parents)
        failure = "Failed to create SRQ"
        try:
            self._memory = self._ring_memory(parents[0], attr)
        except OSError as error:
            raise _kernel.failed(failure, error) from error
        size = attr.max_wr, attr.max_sge
        command = messages.CreateSrq(pd, *size, kind, xrcd, cq, *matching, *self._memory.places, attr.srq_limit)
        with self._memory:
            response = self._execute(command, failure)
        self._handle, self._number = response.handle, int(response.number)
        self._queue = SharedQueue(response)
        self._tags = TagQueue(response.tags) if response.tags is not None else None
        self._parents = parents
        for parent in parents:
            if parent is not None:
                self._attach(parent)

    @staticmethod
    def _ring_memory(pd: PD, attr: SrqInitAttr | SrqInitAttrEx) -> RingMemory:
        """Memory that a parent domain's allocator gives, if the device can have such an SRQ."""
        context = pd._ctx
        if not has_allocator(pd) or context is None:
            return RingMemory()
        device = context.query_device()
        if not (1 <= attr.max_wr <= device.max_srq_wr and attr.max_sge <= device.max_srq_sge):
            return RingMemory()
        return allocate(pd, power_of_two(attr.max_wr) * srq_stride(attr.max_sge), ResourceType.SRQ)

    @staticmethod
    def _checked_parents(attr: SrqInitAttrEx) -> tuple[int, tuple[Any, ...]]:
        """Type, and PD, XRC domain and CQ, as far as `comp_mask` names them."""
        mask, bits = attr.comp_mask, ibv_srq_init_attr_mask
        kind = attr.srq_type if mask & bits.IBV_SRQ_INIT_ATTR_TYPE else SrqType.BASIC
        pd = attr.pd if mask & bits.IBV_SRQ_INIT_ATTR_PD else None
        if pd is None:
            raise PyverbsRDMAError("Failed to create SRQ", errno.EINVAL)
        cq = attr.cq if mask & bits.IBV_SRQ_INIT_ATTR_CQ else None
        if kind == SrqType.TM:
            if not mask & bits.IBV_SRQ_INIT_ATTR_TM or not isinstance(cq, CQEX):
                raise PyverbsRDMAError("Failed to create SRQ", errno.EINVAL)
            return kind, (pd, None, cq)
        if kind != SrqType.XRC:
            return kind, (pd, None, None)
        return kind, (pd, attr.xrcd if mask & bits.IBV_SRQ_INIT_ATTR_XRCD else None, cq)

    def get_srq_num(self) -> int:
        """The number that XRC requests name it by."""
        self._opened()
        return self._number

    def modify(self, attr: SrqAttr, comp_mask: int) -> None:
        """Resize (IBV_SRQ_MAX_WR: `max_wr` and `max_sge`), or arm the limit event (IBV_SRQ_LIMIT).

        PyverbsRDMAError, EINVAL: a depth the device does not have or with no room for what is posted, more SGEs than
        a slot of this SRQ holds, a limit above the depth.
        """
        expect(attr, SrqAttr, "attr")
        members = attr.max_wr, attr.max_sge, attr.srq_limit
        command = messages.ModifySrq(self._opened(), *members, U32(comp_mask))
        self._queue.resize(self._execute(command, "Failed to modify SRQ"))

    def query(self) -> SrqAttr:
        """Depth, SGEs per request, and the armed limit: 0 if its event was raised."""
        response = self._execute(messages.QuerySrq(self._opened()), "Failed to query SRQ")
        return SrqAttr(response.max_wr, response.max_sge, response.srq_limit)

    def post_recv(self, wr: RecvWR, bad_wr: RecvWR | None = None) -> None:
        """Post a chain of receive requests.

        PyverbsRDMAError: ENOMEM (full), EINVAL (too many SGEs). Requests before the refused one are posted; `bad_wr`
        becomes a copy of the refused one.
        """
        expect(wr, RecvWR, "wr")
        expect(bad_wr, RecvWR, "bad_wr", optional=True)
        self._opened()
        error, refused = post_chain(self._queue, wr)
        if error:
            refuse("Failed to post receive to SRQ.", error, refused, bad_wr)

    def post_srq_ops(self, wr: OpsWr, bad_wr: OpsWr | None = None) -> None:
        """Post a chain of operations on the tags of a TM-SRQ.

        PyverbsRDMAError: EINVAL (not a TM-SRQ, opcode, too many SGEs, a handle that no tag has), ENOMEM (all tags in
        use, too many operations outstanding). Operations before the refused one are posted; `bad_wr` becomes a copy of
        the refused one.
        """
        expect(wr, OpsWr, "wr")
        expect(bad_wr, OpsWr, "bad_wr", optional=True)
        self._opened()
        error, refused = post_chain(self._tags, wr) if self._tags is not None else (errno.EINVAL, wr)
        if refused is not wr:
            self._kernel.ring_doorbell(self._parents[2]._device_index, Doorbell.TAG_OPS, self._number, 0)
        if error:
            refuse("post SRQ ops failed.", error, refused, bad_wr)

    def _serve(self, number: int, sends: SendQueue | None) -> None:
        """Receives of QP `number` complete into the CQ of this TM-SRQ, and give tags back; its `sends` may, too."""
        if self._tags is not None:
            self._parents[2]._ring.serve(number, (sends, self._tags))

    def _destroy(self, handle: int) -> None:
        self._execute(messages.DestroySrq(handle), "Failed to destroy SRQ")
        if self._tags is not None:
            self._parents[2]._ring.forget(self._tags.limits.qp_number)

    def _release(self) -> None:
        self._memory.free()
        self._parents = ()
