"""Attributes of queue pairs: what creates them, and what modifies and describes them."""

from __future__ import annotations

from typing import Any

from nicemu.pyverbs._cq import CompletionQueue
from nicemu.pyverbs._fields import I32, U8, U16, U32, U64, Field, Struct, expect
from nicemu.pyverbs._text import flag_names, lines
from nicemu.pyverbs.addr import AHAttr
from nicemu.pyverbs.libibverbs_enums import ibv_mig_state, ibv_mtu, ibv_qp_state, ibv_qp_type
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsUserError
from nicemu.pyverbs.srq import SRQ
from nicemu.pyverbs.utils import access_flags_to_str, mig_state_to_str, mtu_to_str, qp_state_to_str, qp_type_to_str
from nicemu.pyverbs.wq import RwqIndTable, RxHashConf
from nicemu.pyverbs.xrcd import XRCD
from nicemu.uverbs.messages import Capabilities, QpAttributes

_CAPS = ("max_send_wr", "max_recv_wr", "max_send_sge", "max_recv_sge", "max_inline_data")
_CAP_TITLES = ("max send WR", "max recv WR", "max send SGE", "max recv SGE", "max inline data")
_NARROW = "{:20}: {:<20}\n"


class QPCap(Struct):
    """`ibv_qp_cap`: depths of the queues, SGEs per request, bytes of inline data."""

    __slots__ = ()
    max_send_wr = Field(U32, doc="Sends that may be outstanding")
    max_recv_wr = Field(U32, doc="Receives that may be outstanding")
    max_send_sge = Field(U32, doc="SGEs of a send")
    max_recv_sge = Field(U32, doc="SGEs of a receive")
    max_inline_data = Field(U32, doc="Bytes that a send may carry itself")

    def __init__(
        self,
        max_send_wr: int = 1,
        max_recv_wr: int = 10,
        max_send_sge: int = 1,
        max_recv_sge: int = 1,
        max_inline_data: int = 0,
    ) -> None:
        super().__init__(
            max_send_wr=max_send_wr,
            max_recv_wr=max_recv_wr,
            max_send_sge=max_send_sge,
            max_recv_sge=max_recv_sge,
            max_inline_data=max_inline_data,
        )

    def __str__(self) -> str:
        titles = ("max send wrs", "max recv wrs", "max send sges", "max recv sges", "max inline data")
        return lines([(title, getattr(self, name)) for title, name in zip(titles, _CAPS, strict=True)], _NARROW)


class _WithCap(Struct):
    """Attributes that contain an `ibv_qp_cap`."""

    __slots__ = ()

    @property
    def cap(self) -> QPCap:
        """The capabilities: a copy. Setting it copies too."""
        return QPCap(*(self._values.get(name, 0) for name in _CAPS))

    @cap.setter
    def cap(self, val: QPCap | None) -> None:
        _copy_caps(val, self)

    def _capabilities(self) -> Capabilities:
        return Capabilities(*(self._values.get(name, 0) for name in _CAPS))

    def _take_capabilities(self, granted: Capabilities) -> None:
        """What the device has granted (`ibv_create_qp(3)`: "updates the qp_init_attr->cap struct")."""
        self._values.update({name: getattr(granted, name) for name in _CAPS})

    def _cap_rows(self) -> list[tuple[str, object]]:
        return [(title, self._values.get(name, 0)) for title, name in zip(_CAP_TITLES, _CAPS, strict=True)]


def _copy_caps(src: QPCap | None, dst: _WithCap) -> None:
    """Copy capabilities into attributes; None leaves them as they are."""
    expect(src, QPCap, "src", optional=True)
    if src is not None:
        dst._values.update({name: getattr(src, name) for name in _CAPS})


class _InitAttr(_WithCap):
    """What `QPInitAttr` and `QPInitAttrEx` share. CQs may be `CQ` or `CQEX`."""

    __slots__ = ("_qp_context", "_rcq", "_scq", "_srq")
    qp_type = Field(U32, enum=ibv_qp_type, doc="An `ibv_qp_type`")
    sq_sig_all = Field(I32, doc="Whether every send completes, signalled or not")
    max_send_wr = Field(U32, doc="Sends that may be outstanding")
    max_recv_wr = Field(U32, doc="Receives that may be outstanding")
    max_send_sge = Field(U32, doc="SGEs of a send")
    max_recv_sge = Field(U32, doc="SGEs of a receive")
    max_inline_data = Field(U32, doc="Bytes that a send may carry itself")

    def __init__(self, qp_type: int, qp_context: Any, cqs: tuple[Any, Any], srq: SRQ | None, cap: QPCap | None) -> None:
        super().__init__(qp_type=qp_type)
        self.cap = cap
        self._qp_context = qp_context
        self._scq, self._rcq = (self._completion_queue(queue) for queue in cqs)
        self.srq = srq

    @staticmethod
    def _completion_queue(queue: Any) -> CompletionQueue | None:
        if queue is not None and not isinstance(queue, CompletionQueue):
            raise PyverbsUserError(f"Expected CQ/CQEX, got {type(queue)}")
        return queue

    @property
    def send_cq(self) -> CompletionQueue | None:
        """Where sends complete."""
        return self._scq

    @send_cq.setter
    def send_cq(self, val: CompletionQueue | None) -> None:
        self._scq = self._completion_queue(val)

    @property
    def recv_cq(self) -> CompletionQueue | None:
        """Where receives complete."""
        return self._rcq

    @recv_cq.setter
    def recv_cq(self, val: CompletionQueue | None) -> None:
        self._rcq = self._completion_queue(val)

    @property
    def srq(self) -> SRQ | None:
        """The shared receive queue, if receives come from one."""
        return self._srq

    @srq.setter
    def srq(self, val: SRQ | None) -> None:
        expect(val, SRQ, "val", optional=True)
        self._srq = val

    def _head_rows(self) -> list[tuple[str, object]]:
        return [("QP type", qp_type_to_str(self.qp_type)), ("SQ sig. all", self.sq_sig_all)]


class QPInitAttr(_InitAttr):
    """`ibv_qp_init_attr`, for a QP made from a PD."""

    __slots__ = ()

    def __init__(
        self,
        qp_type: int = ibv_qp_type.IBV_QPT_UD,
        qp_context: Any = None,
        scq: CompletionQueue | None = None,
        rcq: CompletionQueue | None = None,
        srq: SRQ | None = None,
        cap: QPCap | None = None,
        sq_sig_all: int = 1,
    ) -> None:
        super().__init__(qp_type, qp_context, (scq, rcq), srq, cap)
        self.sq_sig_all = sq_sig_all

    def __str__(self) -> str:
        return lines(self._head_rows(), _NARROW) + "QP caps:\n" + lines(self._cap_rows(), "    " + _NARROW)


class QPInitAttrEx(_InitAttr):
    """`ibv_qp_init_attr_ex`, for a QP made from a Context. `comp_mask` says which of the members after it count."""

    __slots__ = ("_hash_conf", "_ind_table", "_pd", "_xrcd")
    comp_mask = Field(U32, doc="Which members count, as `ibv_qp_init_attr_mask`")
    create_flags = Field(U32, doc="`ibv_qp_create_flags`")
    max_tso_header = Field(U16, doc="Bytes of the header of a message to segment")
    source_qpn = Field(U32, doc="QP number to send with")
    _send_ops_flags = Field(U64)

    def __init__(
        self,
        qp_type: int = ibv_qp_type.IBV_QPT_UD,
        qp_context: Any = None,
        scq: CompletionQueue | None = None,
        rcq: CompletionQueue | None = None,
        srq: SRQ | None = None,
        cap: QPCap | None = None,
        sq_sig_all: int = 0,
        comp_mask: int = 0,
        pd: PD | None = None,
        xrcd: XRCD | None = None,
        create_flags: int = 0,
        max_tso_header: int = 0,
        source_qpn: int = 0,
        hash_conf: RxHashConf | None = None,
        ind_table: RwqIndTable | None = None,
        send_ops_flags: int = 0,
    ) -> None:
        super().__init__(qp_type, qp_context, (scq, rcq), srq, cap)
        self.sq_sig_all, self.comp_mask, self.create_flags = sq_sig_all, comp_mask, create_flags
        self.max_tso_header, self.source_qpn, self._send_ops_flags = max_tso_header, source_qpn, send_ops_flags
        expect(pd, PD, "pd", optional=True)
        expect(xrcd, XRCD, "xrcd", optional=True)
        expect(hash_conf, RxHashConf, "hash_conf", optional=True)
        expect(ind_table, RwqIndTable, "ind_table", optional=True)
        self._pd, self._xrcd, self._hash_conf, self._ind_table = pd, xrcd, hash_conf, ind_table

    @property
    def ind_table(self) -> RwqIndTable | None:
        """The work queues that packets are spread over."""
        return self._ind_table

    @ind_table.setter
    def ind_table(self, val: RwqIndTable | None) -> None:
        expect(val, RwqIndTable, "val", optional=True)
        self._ind_table = val

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
        """The XRC domain, of an XRC target."""
        return self._xrcd

    @xrcd.setter
    def xrcd(self, val: XRCD | None) -> None:
        expect(val, XRCD, "val", optional=True)
        self._xrcd = val

    def mask_to_str(self, mask: int) -> str:
        """The members that `mask` selects, a space after each."""
        return flag_names(mask, _COMP_MASKS)

    def flags_to_str(self, flags: int) -> str:
        """The names of creation flags, a space after each."""
        return flag_names(flags, _CREATE_FLAGS)

    def __str__(self) -> str:
        caps = [(f"  {title}", value) for title, value in self._cap_rows()]
        rows: list[tuple[str, object]] = [
            *caps,
            ("comp mask", self.mask_to_str(self.comp_mask)),
            ("create flags", self.flags_to_str(self.create_flags)),
            ("max TSO header", self.max_tso_header),
            ("Source QPN", self.source_qpn),
        ]
        return lines(self._head_rows(), _NARROW) + "QP caps:\n" + lines(rows, _NARROW)


_COMP_MASKS = {1: "PD", 2: "XRCD", 4: "Create Flags", 8: "Max TSO header", 16: "Indirection Table", 32: "RX hash"}
_CREATE_FLAGS = {
    1: "Block self mcast loopback",
    2: "Scatter FCS",
    4: "CVLAN stripping",
    8: "Source QPN",
    16: "PCI write end padding",
}


class QPAttr(_WithCap):
    """`ibv_qp_attr`. The defaults fit the step from RESET to INIT."""

    __slots__ = ("_ah", "_alt_ah")
    qp_state = Field(U32, enum=ibv_qp_state, doc="The state to reach, an `ibv_qp_state`")
    cur_qp_state = Field(U32, enum=ibv_qp_state, doc="The state that it is in, an `ibv_qp_state`")
    path_mtu = Field(U32, enum=ibv_mtu, doc="An `ibv_mtu`")
    path_mig_state = Field(U32, enum=ibv_mig_state, doc="An `ibv_mig_state`")
    qkey = Field(U32, doc="The Q_Key of datagrams")
    rq_psn = Field(U32, doc="The first PSN to receive, 24 bits")
    sq_psn = Field(U32, doc="The first PSN to send, 24 bits")
    dest_qp_num = Field(U32, doc="The peer's QP number, 24 bits")
    qp_access_flags = Field(U32, doc="What the peer may do, as `ibv_access_flags`")
    pkey_index = Field(U16, doc="Index into the P_Key table")
    alt_pkey_index = Field(U16, doc="Index into the P_Key table, of the alternate path")
    en_sqd_async_notify = Field(U8, doc="Whether a drained send queue raises an event")
    sq_draining = Field(U8, doc="Whether the send queue is draining")
    max_rd_atomic = Field(U8, doc="RDMA reads and atomics outstanding as requester")
    max_dest_rd_atomic = Field(U8, doc="RDMA reads and atomics outstanding as responder")
    min_rnr_timer = Field(U8, doc="How long a peer without receive has to wait, coded 0..31 (0 is 655.36 ms)")
    port_num = Field(U8, doc="The port, from 1")
    timeout = Field(U8, doc="Time to a retry, as 4.096 us * 2**value; 0 waits forever")
    retry_cnt = Field(U8, doc="Retries after a timeout, 0..7")
    rnr_retry = Field(U8, doc='Retries after "receiver not ready", 0..6; 7 is forever')
    alt_port_num = Field(U8, doc="The port of the alternate path")
    alt_timeout = Field(U8, doc="The timeout of the alternate path")
    rate_limit = Field(U32, doc="Rate limit in kbit/s")

    def __init__(
        self,
        qp_state: int = ibv_qp_state.IBV_QPS_INIT,
        cur_qp_state: int = ibv_qp_state.IBV_QPS_RESET,
        port_num: int = 1,
        path_mtu: int = ibv_mtu.IBV_MTU_1024,
    ) -> None:
        super().__init__(qp_state=qp_state, cur_qp_state=cur_qp_state, port_num=port_num, path_mtu=path_mtu)
        self._ah, self._alt_ah = AHAttr(port_num=0), AHAttr(port_num=0)

    @property
    def ah_attr(self) -> AHAttr:
        """The address vector: a copy. Setting it copies too; None leaves it as it is."""
        return self._ah._copy()

    @ah_attr.setter
    def ah_attr(self, val: AHAttr | None) -> None:
        expect(val, AHAttr, "ah_attr", optional=True)
        self._ah = self._ah if val is None else val._copy()

    @property
    def alt_ah_attr(self) -> AHAttr:
        """The alternate path's address vector, in the same way."""
        return self._alt_ah._copy()

    @alt_ah_attr.setter
    def alt_ah_attr(self, val: AHAttr | None) -> None:
        expect(val, AHAttr, "ah_attr", optional=True)
        self._alt_ah = self._alt_ah if val is None else val._copy()

    def _message(self) -> QpAttributes:
        members = {name: getattr(self, name) for name in _QP_MEMBERS}
        return QpAttributes(
            **members,
            ah_attr=self._ah._message(),
            alt_ah_attr=self._alt_ah._message(),
            caps=self._capabilities(),
        )

    @classmethod
    def _from_message(cls, message: QpAttributes) -> QPAttr:
        attr = cls()
        attr._values = {name: getattr(message, name) for name in _QP_MEMBERS}
        attr._ah = AHAttr._from_message(message.ah_attr)
        attr._alt_ah = AHAttr._from_message(message.alt_ah_attr)
        if message.caps is not None:
            attr._values.update({name: getattr(message.caps, name) for name in _CAPS})
        return attr

    def __str__(self) -> str:
        indented, deep = "  {:22}: {:<20}\n", "    {:22}: {:<20}\n"
        text = lines([(title, self._shown(name)) for title, name in _STATE_ROWS])
        text += "QP caps:\n" + lines(self._cap_rows(), indented)
        for title, ah in (("AH Attr:\n", self._ah), ("Alt. AH Attr:\n", self._alt_ah)):
            text += title + lines(_ah_rows(ah), indented) + lines(ah._route_rows(), deep)
        return text + lines([(title, self._shown(name)) for title, name in _OTHER_ROWS])

    def _shown(self, name: str) -> object:
        value = getattr(self, name)
        shown = _QP_FORMS.get(name)
        return shown(value) if shown else value


def _ah_rows(ah: AHAttr) -> list[tuple[str, object]]:
    names = ("port_num", "sl", "src_path_bits", "dlid", "port_num", "static_rate", "is_global")
    titles = ("port num", "sl", "source path bits", "dlid", "port num", "static rate", "is global")
    return [(title, getattr(ah, name)) for title, name in zip(titles, names, strict=True)]


_QP_MEMBERS = tuple(name for name, value in vars(QPAttr).items() if isinstance(value, Field))
_QP_FORMS: dict[str, Any] = {
    "qp_state": qp_state_to_str,
    "cur_qp_state": qp_state_to_str,
    "path_mtu": mtu_to_str,
    "path_mig_state": mig_state_to_str,
    "qp_access_flags": access_flags_to_str,
}
_STATE_ROWS = (
    ("QP state", "qp_state"),
    ("QP current state", "cur_qp_state"),
    ("Path MTU", "path_mtu"),
    ("Path mig. state", "path_mig_state"),
    ("QKey", "qkey"),
    ("RQ PSN", "rq_psn"),
    ("SQ PSN", "sq_psn"),
    ("Dest QP number", "dest_qp_num"),
    ("QP access flags", "qp_access_flags"),
)
_OTHER_ROWS = (
    ("PKey index", "pkey_index"),
    ("Alt. PKey index", "alt_pkey_index"),
    ("En. SQD async notify", "en_sqd_async_notify"),
    ("SQ draining", "sq_draining"),
    ("Max RD atomic", "max_rd_atomic"),
    ("Max dest. RD atomic", "max_dest_rd_atomic"),
    ("Min RNR timer", "min_rnr_timer"),
    ("Port number", "port_num"),
    ("Timeout", "timeout"),
    ("Retry counter", "retry_cnt"),
    ("RNR retry", "rnr_retry"),
    ("Alt. port number", "alt_port_num"),
    ("Alt. timeout", "alt_timeout"),
    ("Rate limit", "rate_limit"),
)
