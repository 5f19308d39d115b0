"""Work queues and receive-side scaling."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from nicemu.abi.rings import DB_RECV, Doorbell
from nicemu.pyverbs._cq import CompletionQueue
from nicemu.pyverbs._fields import U8, U32, U64, Field, Struct, expect
from nicemu.pyverbs._posting import post_chain, refuse
from nicemu.pyverbs._queues import RecvQueue
from nicemu.pyverbs._resource import Resource
from nicemu.pyverbs.base import PyverbsRDMAErrno
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import ibv_wq_attr_mask, ibv_wq_init_attr_mask, ibv_wq_state, ibv_wq_type
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.wr import RecvWR
from nicemu.uverbs import raw_messages as messages

__all__ = [
    "WQ",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "PyverbsUserError",
    "RwqIndTable",
    "RwqIndTableInitAttr",
    "RxHashConf",
    "WQAttr",
    "WQInitAttr",
]


class WQInitAttr(Struct):
    """`ibv_wq_init_attr`. `create_flags` (`ibv_wq_flags`) count if `comp_mask` says so."""

    __slots__ = {"_pd": "", "_wq_context": "", "cq": "Where receives complete"}
    wq_type = Field(U32, enum=ibv_wq_type, doc="An `ibv_wq_type`")
    _max_wr = Field(U32)
    _max_sge = Field(U32)
    _comp_mask = Field(U32)
    _create_flags = Field(U32)

    def __init__(
        self,
        wq_context: Any = None,
        wq_pd: PD | None = None,
        wq_cq: Any = None,
        wq_type: int = ibv_wq_type.IBV_WQT_RQ,
        max_wr: int = 100,
        max_sge: int = 1,
        comp_mask: int = 0,
        create_flags: int = 0,
    ) -> None:
        expect(wq_pd, PD, "wq_pd", optional=True)
        super().__init__(wq_type=wq_type, _max_wr=max_wr, _max_sge=max_sge)
        self._comp_mask, self._create_flags = comp_mask, create_flags
        self._wq_context, self._pd, self.cq = wq_context, wq_pd, wq_cq

    @property
    def pd(self) -> PD | None:
        """The protection domain."""
        return self._pd

    @pd.setter
    def pd(self, val: PD) -> None:
        expect(val, PD, "val")
        self._pd = val


class WQAttr(Struct):
    """`ibv_wq_attr`."""

    __slots__ = ()
    attr_mask = Field(U32, doc="Which members count, as `ibv_wq_attr_mask`")
    wq_state = Field(U32, enum=ibv_wq_state, doc="The state to reach, an `ibv_wq_state`")
    curr_wq_state = Field(U32, enum=ibv_wq_state, doc="The state that it is in, an `ibv_wq_state`")
    flags = Field(U32, doc="`ibv_wq_flags` to set")
    flags_mask = Field(U32, doc="Which of them to change")

    def __init__(
        self, attr_mask: int = 0, wq_state: int = 0, curr_wq_state: int = 0, flags: int = 0, flags_mask: int = 0
    ) -> None:
        super().__init__(
            attr_mask=attr_mask, wq_state=wq_state, curr_wq_state=curr_wq_state, flags=flags, flags_mask=flags_mask
        )


class WQ(Resource):
    """A work queue: a receive queue that frames are spread over. It starts in RESET; `modify` it to RDY.

    PyverbsRDMAError: EINVAL (depth, type, no PD or CQ), EOPNOTSUPP (a flag), ENOMEM.
    """

    __slots__ = ("_context", "_cq", "_device_index", "_number", "_pd", "_queue")
    KIND = "wqs"
    CHILDREN = ("rwq_ind_tbls",)

    def __init__(self, ctx: Context, attr: WQInitAttr) -> None:
        expect(ctx, Context, "ctx")
        expect(attr, WQInitAttr, "attr")
        super().__init__()
        failure, pd, cq = "Failed to create WQ", attr.pd, attr.cq
        if pd is None or not isinstance(cq, CompletionQueue):
            raise PyverbsRDMAError(failure, errno.EINVAL)
        self._kernel, self._device_index = ctx._kernel, ctx._device_index
        flags = attr._create_flags if attr._comp_mask & ibv_wq_init_attr_mask.IBV_WQ_INIT_ATTR_FLAGS else 0
        command = messages.CreateWq(
            pd._opened(), cq._opened(), attr.wq_type, attr._max_wr, attr._max_sge, flags
        )  # fmt: skip
        made = self._execute(command, failure)
        self._handle, self._number = made.handle, int(made.number)
        self._queue = RecvQueue(made.ring, made.slots, made.stride, made.record, DB_RECV)
        self._queue.max_wr, self._queue.max_sge = made.max_wr, made.max_sge
        cq._ring.serve(self._number, (None, self._queue))
        self._context: Context | None = ctx
        self._pd: PD | None = pd
        self._cq: CompletionQueue | None = cq
        for parent in (ctx, pd, cq):
            self._attach(parent)

    def add_ref(self, obj: RwqIndTable) -> None:
        """Close `obj` before this. PyverbsError: it is no RwqIndTable."""
        if not isinstance(obj, RwqIndTable):
            raise PyverbsError("Unrecognized object type")
        obj._attach(self)

    def modify(self, wq_attr: WQAttr) -> None:
        """Change state or flags. PyverbsRDMAError: EINVAL (no such step), EOPNOTSUPP (a flag). RESET drops its
        completions.
        """
        expect(wq_attr, WQAttr, "wq_attr")
        command = messages.ModifyWq(
            self._opened(),
            wq_attr.attr_mask,
            wq_attr.wq_state,
            wq_attr.curr_wq_state,
            wq_attr.flags,
            wq_attr.flags_mask,
        )
        self._execute(command, "Failed to modify WQ")
        to_reset = (
            wq_attr.attr_mask & ibv_wq_attr_mask.IBV_WQ_ATTR_STATE and wq_attr.wq_state == ibv_wq_state.IBV_WQS_RESET
        )
        if to_reset and self._cq is not None:
            self._cq._ring.clean(self._number)
            self._queue.reset()

    def post_recv(self, wr: RecvWR, bad_wr: RecvWR | None = None) -> None:
        """Post a chain of receive requests.

        PyverbsRDMAError: ENOMEM (full), EINVAL (too many SGEs). Requests before the refused one are posted; `bad_wr`
        becomes a copy of the refused one.
        """
        expect(wr, RecvWR, "wr")
        expect(bad_wr, RecvWR, "bad_wr", optional=True)
        self._opened()
        error, refused = post_chain(self._queue, wr)
        if refused is not wr:
            self._kernel.ring_doorbell(self._device_index, Doorbell.RECV, self._number, self._queue.head)
        if error:
            refuse("Failed to post recv", error, refused, bad_wr)

    @property
    def wqn(self) -> int:
        """The WQ's number: its completions have it as `qp_num`."""
        self._opened()
        return self._number

    def _destroy(self, handle: int) -> None:
        self._execute(messages.DestroyWq(handle), "Failed to dealloc WQ")
        if self._cq is not None:
            self._cq._ring.forget(self._number)

    def _release(self) -> None:
        self._context = self._pd = self._cq = None


class RwqIndTableInitAttr(Struct):
    """`ibv_rwq_ind_table_init_attr`: a WQ for each of `1 << log_ind_tbl_size` entries.

    PyverbsUserError: no entries, or fewer than WQs.
    """

    __slots__ = ("_wqs_list",)
    _log_ind_tbl_size = Field(U32)
    _comp_mask = Field(U32)

    def __init__(self, log_ind_tbl_size: int = 5, wqs_list: Sequence[WQ] | None = None, comp_mask: int = 0) -> None:
        if log_ind_tbl_size <= 0:
            raise PyverbsUserError("Invalid indirection table size. Log size must be > 0")
        count = len(wqs_list)  # type: ignore[arg-type]  # None gets its TypeError
        if 1 << log_ind_tbl_size < count:
            raise PyverbsUserError(
                f"Requested table size ({1 << log_ind_tbl_size}) is smaller than the number of wqs ({count})"
            )
        super().__init__(_log_ind_tbl_size=log_ind_tbl_size, _comp_mask=comp_mask)
        self._wqs_list = wqs_list


class RwqIndTable(Resource):
    """A table that spreads frames over work queues. PyverbsRDMAError: EINVAL unless each entry has a WQ; ENOMEM."""

    __slots__ = ("_context", "_wqs")
    KIND = "rwq_ind_tbls"
    CHILDREN = ("qps",)

    def __init__(self, ctx: Context, attr: RwqIndTableInitAttr) -> None:
        expect(ctx, Context, "ctx")
        expect(attr, RwqIndTableInitAttr, "attr")
        super().__init__()
        self._kernel = ctx._kernel
        wqs = list(attr._wqs_list or ())
        handles = tuple(wq._opened() for wq in wqs)
        command = messages.CreateIndTable(ctx._opened(), attr._log_ind_tbl_size, handles)
        self._handle = self._execute(command, "Failed to create RwqIndTable")
        self._context: Context | None = ctx
        self._wqs = attr._wqs_list
        self._attach(ctx)
        for wq in wqs:
            wq.add_ref(self)

    def add_ref(self, obj: Resource) -> None:
        """Close `obj`, a QP, before this. PyverbsError: it is none."""
        if obj.KIND != "qps":
            raise PyverbsError("Unrecognized object type")
        obj._attach(self)

    @property
    def wqs(self) -> Sequence[WQ] | None:
        """The WQs, in order."""
        return self._wqs

    def _destroy(self, handle: int) -> None:
        self._execute(messages.DestroyIndTable(handle), "Failed to dealloc RWQ IND TBL")

    def _release(self) -> None:
        self._context = None


class RxHashConf(Struct):
    """`ibv_rx_hash_conf`: how frames are hashed. PyverbsUserError: a key of another length than `rx_hash_key_len`."""

    __slots__ = ("_key",)
    rx_hash_function = Field(U8, doc="An `ibv_rx_hash_function_flags`")
    _key_len = Field(U8)
    rx_hash_fields_mask = Field(U64, doc="What is hashed, as `ibv_rx_hash_fields`")

    def __init__(
        self,
        rx_hash_function: int = 0,
        rx_hash_key_len: int = 0,
        rx_hash_key: Sequence[int] | None = None,
        rx_hash_fields_mask: int = 0,
    ) -> None:
        super().__init__(rx_hash_function=rx_hash_function)
        self._key = b""
        if rx_hash_key:
            if rx_hash_key_len != len(rx_hash_key):
                raise PyverbsUserError("Length of rx_hash_key not equal to rx_hash_key_len")
            self.rx_hash_key = rx_hash_key
        self._key_len, self.rx_hash_fields_mask = rx_hash_key_len, rx_hash_fields_mask

    @property
    def rx_hash_key_len(self) -> int:
        """Bytes of the key. PyverbsUserError: not above 0."""
        return self._key_len

    @rx_hash_key_len.setter
    def rx_hash_key_len(self, val: int) -> None:
        if val <= 0:
            raise PyverbsUserError("Invalid rx_hash_key_len. Must be greater then 0")
        self._key_len = val

    @property
    def rx_hash_key(self) -> int:
        """Reads as `rx_hash_fields_mask`, as it does in pyverbs 59; setting it sets the key."""
        return self.rx_hash_fields_mask

    @rx_hash_key.setter
    def rx_hash_key(self, vals_list: Sequence[int]) -> None:
        self._key = bytes(U8(value) for value in vals_list)
        self._key_len = len(self._key)

    def _key_bytes(self) -> bytes:
        """As many bytes of the key as `rx_hash_key_len` says, if it has them."""
        return self._key[: self._key_len] if self._key_len <= len(self._key) else b""
