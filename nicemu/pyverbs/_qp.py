"""Queue pairs."""

from __future__ import annotations

import errno

from nicemu.abi.rings import Doorbell, recv_ring_bytes, send_ring_bytes
from nicemu.abi.verbs import QpAttrMask, QpState, QpType, WrOpcode
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._cq import CompletionQueue
from nicemu.pyverbs._ece import ECE
from nicemu.pyverbs._fields import U32, expect
from nicemu.pyverbs._posting import post_chain, refuse
from nicemu.pyverbs._qp_attr import QPAttr, QPInitAttr, QPInitAttrEx
from nicemu.pyverbs._qp_operations import OPERATIONS
from nicemu.pyverbs._queues import RecvQueue, SendQueue
from nicemu.pyverbs._resource import Resource, unsupported
from nicemu.pyverbs._ring_memory import ResourceType, RingMemory, allocate, has_allocator
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import (
    ibv_access_flags,
    ibv_mw_type,
    ibv_qp_init_attr_mask,
    ibv_qp_state,
    ibv_qp_type,
)
from nicemu.pyverbs.mr import MW, MWBind
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.srq import SRQ
from nicemu.pyverbs.utils import qp_state_to_str, qp_type_to_str
from nicemu.pyverbs.wr import RecvWR, SendWR
from nicemu.pyverbs.xrcd import XRCD
from nicemu.uverbs import messages, raw_messages

_A = QpAttrMask
_CONNECTED = {
    "INIT": _A.PKEY_INDEX | _A.PORT | _A.ACCESS_FLAGS,
    "RTR": _A.AV | _A.PATH_MTU | _A.DEST_QPN | _A.RQ_PSN,
    "RTS": _A.SQ_PSN,
}
_RESPONDER = {"RTR": _CONNECTED["RTR"] | _A.MAX_DEST_RD_ATOMIC | _A.MIN_RNR_TIMER}
_REQUESTER = {"RTS": _A.SQ_PSN | _A.TIMEOUT | _A.RETRY_CNT | _A.RNR_RETRY | _A.MAX_QP_RD_ATOMIC}
_NOTHING = _A(0)
_STEPS: dict[int, dict[str, QpAttrMask]] = {
    QpType.RC: _CONNECTED | _RESPONDER | _REQUESTER,
    QpType.UC: _CONNECTED,
    QpType.UD: {"INIT": _A.PKEY_INDEX | _A.PORT | _A.QKEY, "RTR": _NOTHING, "RTS": _A.SQ_PSN},
    QpType.RAW_PACKET: {"INIT": _A.PORT, "RTR": _NOTHING, "RTS": _NOTHING},
    QpType.XRC_RECV: _CONNECTED | _RESPONDER | {"RTS": _A.TIMEOUT | _A.SQ_PSN},
    QpType.XRC_SEND: _CONNECTED | _REQUESTER,
}
"""The attributes that take a QP of each type one state on."""

_MAY_SEND = frozenset((QpState.RTS, QpState.SQD, QpState.SQE, QpState.ERR))
_STARTED = (QpState.RTS, QpState.ERR)
_MAX_INLINE = 4096
"""No device has more: what it has, the kernel checks."""
_RESET, _INIT, _RTR = int(QpState.RESET), int(QpState.INIT), int(QpState.RTR)
_XRC = (QpType.XRC_SEND, QpType.XRC_RECV)
_SEND, _RECV = Doorbell.SEND, Doorbell.RECV
_MASK = ibv_qp_init_attr_mask
_RSS = _MASK.IBV_QP_INIT_ATTR_IND_TABLE | _MASK.IBV_QP_INIT_ATTR_RX_HASH
_EXTENSIONS = _RSS | _MASK.IBV_QP_INIT_ATTR_MAX_TSO_HEADER
"""What only raw packet QPs have."""


def _raw_options(attr: QPInitAttr | QPInitAttrEx) -> tuple[int, int]:
    """Creation flags and bytes of TSO headers, as far as `comp_mask` names them."""
    mask = getattr(attr, "comp_mask", 0)
    return (
        attr.create_flags if mask & _MASK.IBV_QP_INIT_ATTR_CREATE_FLAGS else 0,  # type: ignore[union-attr]
        attr.max_tso_header if mask & _MASK.IBV_QP_INIT_ATTR_MAX_TSO_HEADER else 0,  # type: ignore[union-attr]
    )


class QP(Resource):
    """A queue pair, made from a PD with a QPInitAttr or from a Context with a QPInitAttrEx.

    With a `qp_attr` it is taken on at once: UD and raw packet QPs to RTS, connected ones to INIT. PyverbsRDMAError:
    EINVAL for capabilities over the device's, EOPNOTSUPP for a transport it does not have.
    """

    __slots__ = (
        "_context", "_device_index", "_forgets_sends", "_memory", "_number", "_pd", "_rcq", "_recv_queue", "_scq",
        "_send_queue", "_signal_all", "_srq", "_state", "_type", "_xrcd",
    )  # fmt: skip
    KIND = "qps"
    CHILDREN = ("mws", "flows", "dr_actions")
    _context: Context | None
    _pd: PD | None
    _xrcd: XRCD | None
    _srq: SRQ | None
    _scq: CompletionQueue | None
    _rcq: CompletionQueue | None

    def __init__(
        self, creator: PD | Context, init_attr: QPInitAttr | QPInitAttrEx, qp_attr: QPAttr | None = None
    ) -> None:
        expect(qp_attr, QPAttr, "qp_attr", optional=True)
        super().__init__()
        self._context = self._pd = self._xrcd = self._srq = None
        if isinstance(creator, Context):
            expect(init_attr, QPInitAttrEx, "attr")
            self._context, self._device_index = creator, creator._device_index
            self._pd, self._xrcd = self._checked_parents(init_attr)  # type: ignore[arg-type]
        else:
            expect(creator, PD, "pd")
            expect(init_attr, QPInitAttr, "attr")
            self._pd = creator
        self._kernel = creator._kernel
        if getattr(init_attr, "comp_mask", 0) & _RSS:
            self._create_rss(init_attr)  # type: ignore[arg-type]
        else:
            self._create(init_attr)
        for parent in (self._pd, self._context, self._scq, self._rcq, self._srq, self._xrcd):
            if parent is not None:
                self._attach(parent)
        if qp_attr is not None:
            is_datagram = self._type in (ibv_qp_type.IBV_QPT_UD, ibv_qp_type.IBV_QPT_RAW_PACKET)
            (self.to_rts if is_datagram else self.to_init)(qp_attr)

    @staticmethod
    def _checked_parents(attr: QPInitAttrEx) -> tuple[PD | None, XRCD | None]:
        """PD and XRC domain of an extended creation, if it asks for nothing that the device lacks."""
        failure, mask = "Failed to create QP", attr.comp_mask
        flags = attr.create_flags if mask & _MASK.IBV_QP_INIT_ATTR_CREATE_FLAGS else 0
        operations = attr._send_ops_flags if mask & _MASK.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS else 0
        foreign = (mask & _EXTENSIONS or flags) and attr.qp_type != QpType.RAW_PACKET
        if foreign or operations & ~OPERATIONS.get(attr.qp_type, 0):
            raise unsupported(failure)
        parents: tuple[PD | None, XRCD | None]
        if attr.qp_type == QpType.XRC_RECV:
            parents = None, attr.xrcd if mask & _MASK.IBV_QP_INIT_ATTR_XRCD else None
        else:
            parents = attr.pd if mask & _MASK.IBV_QP_INIT_ATTR_PD else None, None
        if parents == (None, None):
            raise PyverbsRDMAError(failure, errno.EINVAL)
        return parents

    def _create(self, attr: QPInitAttr | QPInitAttrEx) -> None:
        failure, kind = "Failed to create QP", attr.qp_type
        has_queues, has_receives = kind != QpType.XRC_RECV, kind not in _XRC
        self._scq = attr.send_cq if has_queues else None
        self._rcq = attr.recv_cq if has_receives else None
        self._srq = attr.srq if has_receives else None
        if (has_queues and self._scq is None) or (has_receives and self._rcq is None):
            raise PyverbsRDMAError(failure, errno.EINVAL)
        pd, scq, rcq, srq, xrcd = (
            parent._opened() if parent is not None else 0
            for parent in (self._pd, self._scq, self._rcq, self._srq, self._xrcd)
        )
        caps, (flags, header) = attr._capabilities(), _raw_options(attr)
        try:
            self._memory = self._ring_memory(kind, caps, header)
        except OSError as error:
            raise _kernel.failed(failure, error) from error
        self._signal_all = int(bool(attr.sq_sig_all))
        command = messages.CreateQp(
            pd, kind, scq, rcq, caps, self._signal_all, srq, xrcd, flags, header, *self._memory.places
        )  # fmt: skip
        with self._memory:
            response = self._execute(command, failure)
        attr._take_capabilities(response.caps)
        self._open(response, kind)

    def _create_rss(self, attr: QPInitAttrEx) -> None:
        """A QP that hashes into an indirection table: no queues of its own."""
        table, conf, failure = attr.ind_table, attr._hash_conf, "Failed to create QP"
        self._scq = self._rcq = self._srq = None
        self._memory, self._signal_all = RingMemory(), int(bool(attr.sq_sig_all))
        if attr.comp_mask & _RSS != _RSS or table is None or conf is None or attr.send_cq is not None:
            raise PyverbsRDMAError(failure, errno.EINVAL)
        assert self._pd is not None
        command = raw_messages.CreateRssQp(
            self._pd._opened(), table._opened(), conf.rx_hash_function, conf._key_bytes(), conf.rx_hash_fields_mask,
            attr._capabilities(), *_raw_options(attr),
        )  # fmt: skip
        self._open(self._execute(command, failure), attr.qp_type)
        table.add_ref(self)

    def _open(self, response: messages.QpResponse, kind: int) -> None:
        self._handle, self._number = response.handle, int(response.number)
        self._type, self._state = kind, _RESET
        context = self._context or self._pd._ctx  # type: ignore[union-attr]
        software = context._software  # type: ignore[union-attr]
        self._forgets_sends = software.forgets_sends
        self._send_queue = SendQueue.of(response, kind, self._kernel.process, software)
        self._recv_queue = RecvQueue.of(response)
        for queue in (self._scq, self._rcq):
            if queue is not None:
                self._device_index = queue._device_index
                queue._ring.serve(self._number, (self._send_queue, self._recv_queue))
        if self._srq is not None:
            self._srq._serve(self._number, self._send_queue)

    def _ring_memory(self, kind: int, caps: messages.Capabilities, max_tso_header: int) -> RingMemory:
        """Memory that a parent domain's allocator gives for receive and send ring, if the device can have such a QP."""
        context = self._pd._ctx if self._pd is not None else None
        if self._pd is None or context is None or not has_allocator(self._pd):
            return RingMemory()
        device = context.query_device()
        requests, elements = (caps.max_send_wr, caps.max_recv_wr), (caps.max_send_sge, caps.max_recv_sge)
        if max(requests) > device.max_qp_wr or max(elements) > device.max_sge or caps.max_inline_data > _MAX_INLINE:
            return RingMemory()
        received = recv_ring_bytes(caps) if kind not in _XRC and self._srq is None else 0
        matches_tags = self._srq is not None and self._srq._tags is not None
        sent = send_ring_bytes(caps, max_tso_header)
        if matches_tags and not caps.max_send_wr:
            sent = 0  # the send ring is the device's
        return allocate(self._pd, received + sent, ResourceType.QP)

    def _destroy(self, handle: int) -> None:
        self._execute(messages.DestroyQp(handle), "Failed to destroy QP")
        for queue in (self._scq, self._rcq):
            if queue is not None:
                queue._ring.forget(self._number)

    def _release(self) -> None:
        self._memory.free()
        self._pd = self._context = self._scq = self._rcq = self._srq = self._xrcd = None

    # State --------------------------------------------------------------------------------------------------------

    def _get_comp_mask(self, dst: str) -> int:
        """The mask for the step to `dst`: 'INIT', 'RTR' or 'RTS'."""
        return int(_STEPS[self._type][dst] | _A.STATE)

    def to_init(self, qp_attr: QPAttr) -> None:
        """Take the QP to INIT."""
        self._step(qp_attr, "INIT", "Failed to modify QP state to init")

    def to_rtr(self, qp_attr: QPAttr) -> None:
        """Take the QP to RTR; unless it is in INIT, to INIT first."""
        if self.qp_state != _INIT:
            self.to_init(qp_attr)
        self._step(qp_attr, "RTR", "Failed to modify QP state to RTR")

    def to_rts(self, qp_attr: QPAttr) -> None:
        """Take the QP to RTS; unless it is in RTR, to RTR first."""
        if self.qp_state != _RTR:
            self.to_rtr(qp_attr)
        self._step(qp_attr, "RTS", "Failed to modify QP state to RTS")

    def _step(self, qp_attr: QPAttr, state: str, failure: str) -> None:
        expect(qp_attr, QPAttr, "qp_attr")
        qp_attr.qp_state = ibv_qp_state[f"IBV_QPS_{state}"]
        self._modify(qp_attr, self._get_comp_mask(state), failure)

    def modify(self, qp_attr: QPAttr, comp_mask: int) -> None:
        """Change the attributes that `comp_mask` names.

        PyverbsRDMAError, EINVAL: not a step of the state table with this mask, or a value the device does not have.
        Going to RESET drops the QP's completions from its CQs.
        """
        expect(qp_attr, QPAttr, "qp_attr")
        self._modify(qp_attr, U32(comp_mask), "Failed to modify QP")

    def _modify(self, attr: QPAttr, mask: int, failure: str) -> None:
        if self._forgets_sends and mask & _A.STATE and attr.qp_state == QpState.ERR and self._send_queue:
            self._send_queue.publish()  # the kernel flushes what is in the ring
        self._execute(messages.ModifyQp(self._opened(), attr._message(), mask), failure)
        if mask & _A.STATE:
            self._state = attr.qp_state
            if self._state == _RESET:
                self._forget_work()

    def _forget_work(self) -> None:
        for queue in (self._scq, self._rcq):
            if queue is not None:
                queue._ring.clean(self._number)
        for ring in (self._send_queue, self._recv_queue):
            if ring is not None:
                ring.reset()

    def query(self, attr_mask: int) -> tuple[QPAttr, QPInitAttr]:
        """(attributes, init attributes) as the kernel has them: all of them, whatever `attr_mask` says."""
        mask = U32(attr_mask)
        message = self._execute(messages.QueryQp(self._opened()), "Failed to query QP")
        attr = QPAttr._from_message(message)
        init_attr = QPInitAttr(qp_type=self._type, cap=attr.cap, sq_sig_all=self._signal_all)
        if mask & _A.STATE:
            self._state = attr.qp_state
        return attr, init_attr

    # Work requests ------------------------------------------------------------------------------------------------

    def post_send(self, wr: SendWR, bad_wr: SendWR | None = None) -> None:
        """Post a chain of send requests.

        PyverbsRDMAError: EINVAL (QP state or type, opcode, too many SGEs, too much inline data), ENOMEM (queue full).
        Requests before the refused one are posted; `bad_wr` becomes a copy of the refused one.
        """
        if not isinstance(wr, SendWR) or bad_wr is not None:
            expect(wr, SendWR, "wr")
            expect(bad_wr, SendWR, "bad_wr")
        self._opened()
        queue = self._send_queue
        may = queue is not None and self._state in _MAY_SEND
        if self._forgets_sends and self._state not in _STARTED:
            error, refused = self._post_unseen(wr, may)
        else:
            error, refused = post_chain(queue, wr) if may else (errno.EINVAL, wr)  # type: ignore[arg-type]
            if refused is not wr:
                self._kernel.ring_doorbell(self._device_index, _SEND, self._number, queue.head)  # type: ignore[union-attr]
        if error:
            refuse("Failed to post send", error, refused, bad_wr)

    def _post_unseen(self, wr: SendWR, may: bool) -> tuple[int, SendWR | None]:
        """Written to the ring, and the device not told (`config.SoftwareProfile`, forgets_sends)."""
        answer = post_chain(self._send_queue, wr, show=False) if self._send_queue is not None else (0, None)
        return answer if may else (errno.EINVAL, wr)

    def post_recv(self, wr: RecvWR, bad_wr: RecvWR | None = None) -> None:
        """Post a chain of receive requests; errors as for `post_send`. EINVAL also for a QP with an SRQ."""
        if not isinstance(wr, RecvWR) or bad_wr is not None:
            expect(wr, RecvWR, "wr")
            expect(bad_wr, RecvWR, "bad_wr")
        self._opened()
        queue = self._recv_queue
        may = queue is not None and self._state != _RESET
        error, refused = post_chain(queue, wr) if may else (errno.EINVAL, wr)  # type: ignore[arg-type]
        if refused is not wr:
            self._kernel.ring_doorbell(self._device_index, _RECV, self._number, queue.head)  # type: ignore[union-attr]
        if error:
            refuse("Failed to post recv", error, refused, bad_wr)

    def bind_mw(self, mw: MW, mw_bind: MWBind) -> None:
        """Bind a type 1 memory window: it has the next key at once.

        PyverbsRDMAError: EINVAL for type 2 and for zero-based access; else as `post_send`.
        """
        expect(mw, MW, "mw")
        expect(mw_bind, MWBind, "mw_bind")
        failure, zero_based = "Failed to Bind MW", ibv_access_flags.IBV_ACCESS_ZERO_BASED
        if mw.type != ibv_mw_type.IBV_MW_TYPE_1 or mw_bind._info.mw_access_flags & zero_based:
            raise PyverbsRDMAError(failure, errno.EINVAL)
        wr = SendWR(mw_bind._wr_id, WrOpcode.BIND_MW, send_flags=mw_bind._send_flags)
        wr.set_bind_wr(mw, mw_bind._info)
        try:
            self.post_send(wr)
        except PyverbsRDMAError as error:
            raise PyverbsRDMAError(failure, error.error_code) from error
        mw._rkey = wr.rkey

    # Options and guarantees -----------------------------------------------------------------------------------------

    def set_ece(self, ece: ECE) -> None:
        """Ask for ECE options; without a vendor nothing is asked. The device has none, so that none are granted, as
        `query_ece` says. PyverbsRDMAError, EINVAL: another vendor's options, or a `comp_mask`.
        """
        expect(ece, ECE, "ece")
        self._opened()
        if ece.vendor_id and (ece.comp_mask or ece.vendor_id != self._vendor_id()):
            raise PyverbsRDMAError("Failed to set ECE", errno.EINVAL)

    def query_ece(self) -> ECE:
        """The ECE options in use: the device's vendor, and none."""
        self._opened()
        return ECE(vendor_id=self._vendor_id())

    def _vendor_id(self) -> int:
        owner = self._context or (self._pd._ctx if self._pd is not None else None)
        assert owner is not None, "an open QP has a context"
        return owner.query_device().vendor_id

    def query_data_in_order(self, op: int, flags: int = 0) -> int:
        """Does the device write the data of `op` in order: as a whole message (`flags` 0), or which
        `ibv_query_qp_data_in_order_caps` (`flags` 1: RETURN_CAPS)? It gives no such guarantee: 0.
        """
        self._opened()
        U32(op), U32(flags)
        return 0

    # ----------------------------------------------------------------------------------------------------------------

    @property
    def qp_type(self) -> ibv_qp_type:
        """The QP's type."""
        self._opened()
        return ibv_qp_type(self._type)

    @property
    def qp_state(self) -> ibv_qp_state:
        """The state that the last modify or query saw; the device may have gone on to ERR by itself."""
        self._opened()
        return ibv_qp_state(self._state)

    @property
    def qp_num(self) -> int:
        """The QP number."""
        self._opened()
        return self._number

    def __str__(self) -> str:
        return lines(
            [
                ("QP type", qp_type_to_str(self.qp_type)),
                ("  number", self.qp_num),
                ("  state", qp_state_to_str(self.qp_state)),
            ]
        )
