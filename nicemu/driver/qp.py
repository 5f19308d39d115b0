"""Queue pairs (``mlx5_ib_create_qp, ib_modify_qp_with_udata``): RC, UC, UD, both ends of XRC, raw packets.

Attributes travel by the names of ``ibv_qp_attr``. The driver keeps the values the program set; the state and what
the hardware changes are asked of the device. RSS QPs are made in :mod:`nicemu.driver.rss`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import QP_CONTEXT, AvField, Command, QpField, QpFlag, RingOwner
from nicemu.abi.rings import power_of_two, recv_stride, send_stride
from nicemu.abi.tag_matching import MAX_TAG_SGES, RNDV_BYTES
from nicemu.abi.verbs import MTU_BYTES, QpAttrMask, QpState, QpType, SrqType
from nicemu.driver import ah, mcast, program_ring, qp_state_table
from nicemu.driver.capabilities import check_capabilities, fitting_attributes, granted_capabilities
from nicemu.driver.errors import DriverError
from nicemu.driver.pd import Pd
from nicemu.driver.program_ring import Placed, Places
from nicemu.driver.raw_options import RawOptions, check_rate, checked_options
from nicemu.driver.ring import Memory
from nicemu.driver.xrcd import Xrcd
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context
    from nicemu.driver.cq import Cq
    from nicemu.driver.device import IbDevice
    from nicemu.driver.rwq_ind_table import IndTable
    from nicemu.driver.srq import Srq

A = QpAttrMask
FIELDS: dict[QpAttrMask, tuple[str, ...]] = {
    A.CUR_STATE: ("cur_qp_state",), A.EN_SQD_ASYNC_NOTIFY: ("en_sqd_async_notify",),
    A.ACCESS_FLAGS: ("qp_access_flags",), A.PKEY_INDEX: ("pkey_index",), A.PORT: ("port_num",), A.QKEY: ("qkey",),
    A.AV: ("ah_attr",), A.PATH_MTU: ("path_mtu",), A.TIMEOUT: ("timeout",), A.RETRY_CNT: ("retry_cnt",),
    A.RNR_RETRY: ("rnr_retry",), A.RQ_PSN: ("rq_psn",), A.MAX_QP_RD_ATOMIC: ("max_rd_atomic",),
    A.ALT_PATH: ("alt_ah_attr", "alt_pkey_index", "alt_port_num", "alt_timeout"),
    A.MIN_RNR_TIMER: ("min_rnr_timer",), A.SQ_PSN: ("sq_psn",), A.MAX_DEST_RD_ATOMIC: ("max_dest_rd_atomic",),
    A.PATH_MIG_STATE: ("path_mig_state",), A.DEST_QPN: ("dest_qp_num",), A.RATE_LIMIT: ("rate_limit",),
}  # fmt: skip
"""The attributes each mask bit is about. CAP (resize) is not supported, as in mlx5."""

CONTEXT_FIELDS = {
    QpField.ACCESS: "qp_access_flags", QpField.PKEY_INDEX: "pkey_index", QpField.PORT: "port_num",
    QpField.QKEY: "qkey", QpField.PATH_MTU: "path_mtu", QpField.TIMEOUT: "timeout", QpField.RETRY_CNT: "retry_cnt",
    QpField.RNR_RETRY: "rnr_retry", QpField.RQ_PSN: "rq_psn", QpField.MAX_RD_ATOMIC: "max_rd_atomic",
    QpField.MIN_RNR_TIMER: "min_rnr_timer", QpField.SQ_PSN: "sq_psn",
    QpField.MAX_DEST_RD_ATOMIC: "max_dest_rd_atomic", QpField.DEST_QPN: "dest_qp_num",
    QpField.EN_SQD_ASYNC_NOTIFY: "en_sqd_async_notify", QpField.RATE_KBPS: "rate_limit",
}  # fmt: skip
"""Words of the device's QP context that hold an attribute as it is."""

LIMITS = {A.TIMEOUT: 31, A.RETRY_CNT: 7, A.RNR_RETRY: 7, A.MIN_RNR_TIMER: 31, A.DEST_QPN: (1 << 24) - 1}
"""Largest value of an attribute (its width on the wire or in the QP context)."""
PSN_MASK = (1 << 24) - 1
RENDEZVOUS_SLOTS = 256
"""Of the device's own send queue: a READ and a FIN for each tag that it can hold by default."""

NO_RING = Memory(0, memoryview(b""))
WITH_RECEIVES = (QpType.RC, QpType.UC, QpType.UD, QpType.RAW_PACKET)


@dataclass(eq=False, slots=True)
class Qp:
    """``attributes``: what the program set, by name. ``state``: as last heard of.

    An XRC target (XRC_RECV) has a domain and nothing else; an XRC initiator no receive queue; a QP with an SRQ none of
    its own. A ring that is not there has 0 slots. ``rendezvous``: the send ring is the device's own.
    """

    context: Context
    type: QpType
    number: int
    caps: Any
    record: Memory
    pd: Pd | None = None
    send_cq: Cq | None = None
    recv_cq: Cq | None = None
    srq: Srq | None = None
    xrcd: Xrcd | None = None
    send_ring: Memory = NO_RING
    send_slots: int = 0
    send_stride: int = 0
    recv_ring: Memory = NO_RING
    recv_slots: int = 0
    recv_stride: int = 0
    placed: Placed | None = None
    """Rings and record in memory of the program."""
    sq_entry: int = 0
    rendezvous: bool = False
    state: QpState = QpState.RESET
    attributes: dict[str, Any] = field(default_factory=dict)
    groups: list[bytes] = field(default_factory=list)
    """Multicast GIDs it is a member of."""
    raw: RawOptions = field(default_factory=RawOptions)
    ind_table: IndTable | None = None
    """Of an RSS QP, which has nothing else."""
    handle: int = 0
    users: int = 0
    """Flow rules."""

    @property
    def device(self) -> IbDevice:
        """The device it is on."""
        return self.context.device

    @property
    def used(self) -> list[Pd | Cq | Srq | Xrcd | IndTable]:
        """What has to stay while the QP exists, each as often as it is used."""
        parents = (self.pd, self.send_cq, self.recv_cq, self.srq, self.xrcd, self.ind_table)
        return [parent for parent in parents if parent is not None]


def check_type(kind: int, profile: Any) -> QpType:
    """EINVAL: no such type. EOPNOTSUPP: the device does not have it."""
    if kind not in QpType.__members__.values():
        raise DriverError(errno.EINVAL, f"QP: no type {kind}")
    missing = {QpType.XRC_SEND: not profile.max_xrcd, QpType.XRC_RECV: not profile.max_xrcd,
               QpType.RAW_PACKET: profile.raw_packet is None}  # fmt: skip
    if missing.get(QpType(kind), False):
        raise DriverError(errno.EOPNOTSUPP, f"QP: transport {QpType(kind).name} is not supported")
    return QpType(kind)


def create(parent: Pd | Xrcd, kind: int, queues: tuple[Any, ...], caps: Any, sq_sig_all: int,
           raw: RawOptions | None = None, places: Places | None = None) -> Steps[Qp]:  # fmt: skip
    """A QP in RESET. ``queues``: send CQ, receive CQ and, if it has one, SRQ; the parent of an XRC target is its
    domain, and it needs no queues. Granted is what was asked for, or more, and 0 of what the type does not have.

    EINVAL: capabilities, the wrong parent for the type, an XRC SRQ, a TM-SRQ and not RC, no CQ, objects of another
    context, creation flags of raw packets for another type. ENOMEM: out of QPs. EOPNOTSUPP: a transport or flag that
    the device does not have. ``places``: errors as of ``program_ring.hold``.
    """
    context, device = parent.context, parent.context.device
    check_capabilities(device.profile, caps)
    qp_type = check_type(kind, device.profile)
    pair = Qp(context, qp_type, 0, granted_capabilities(device.profile, caps), NO_RING)
    if raw is not None:
        pair.raw = checked_options(qp_type, device.profile.raw_packet, raw)
    _attach(pair, parent, queues)
    _allocate_rings(pair)
    try:
        pair.number = device.qp_numbers.take()
    except DriverError:
        if pair.send_slots:
            device.device.free_sq_entries(pair.sq_entry, pair.send_slots)
        raise
    pair.record = device.records.take()
    for user in pair.used:
        user.users += 1
    try:
        yield from device.commands.execute(
            Command.CREATE_QP, pair.number, qp_type, *(o.number if o else 0 for o in _by_number(pair)),
            _send_word(pair), pair.send_slots, pair.send_stride, _recv_word(pair), pair.recv_slots, pair.recv_stride,
            pair.record.address, _flags(pair, sq_sig_all), pair.sq_entry,
        )  # fmt: skip
    except DriverError:
        _release(pair)
        raise
    if places and pair.pd:
        yield from _place(pair, pair.pd, places)
    pair.handle = context.driver.qps.add(pair)
    device.qps[pair.number] = pair
    return pair


def _attach(pair: Qp, parent: Pd | Xrcd, queues: tuple[Any, ...]) -> None:
    """What the QP hangs on, checked (``ib_uverbs_create_qp``)."""
    target = pair.type == QpType.XRC_RECV
    if target != isinstance(parent, Xrcd):
        raise DriverError(errno.EINVAL, f"QP: {pair.type.name} is made from {'an XRC domain' if target else 'a PD'}")
    if isinstance(parent, Xrcd):
        pair.xrcd = parent
        return
    pair.pd = parent
    pair.send_cq, pair.recv_cq = queues[:2]
    if pair.type == QpType.XRC_SEND:
        pair.recv_cq = pair.send_cq
    elif len(queues) > 2:
        pair.srq = queues[2]
    if pair.send_cq is None or pair.recv_cq is None:
        raise DriverError(errno.EINVAL, "QP: no CQ")
    if any(other.context is not pair.context for other in pair.used):
        raise DriverError(errno.EINVAL, "QP: a CQ or SRQ of another context")
    if pair.srq is not None and pair.srq.type == SrqType.XRC:
        raise DriverError(errno.EINVAL, "QP: an XRC SRQ serves XRC targets only")
    if pair.srq is not None and pair.srq.type == SrqType.TM:
        if pair.type != QpType.RC:
            raise DriverError(errno.EINVAL, "QP: a TM-SRQ serves RC only")
        pair.rendezvous = not pair.caps.max_send_wr  # mlx5: a QP without a send queue


def _allocate_rings(pair: Qp) -> None:
    """The rings that the type has. ENOMEM: no context memory for the send queue."""
    allocate = pair.context.driver.allocate
    sends, receives = pair.type != QpType.XRC_RECV, pair.type in WITH_RECEIVES and pair.srq is None
    if not sends:
        pair.caps = replace(pair.caps, max_send_wr=0, max_send_sge=0, max_inline_data=0)
    if not receives:
        pair.caps = replace(pair.caps, max_recv_wr=0, max_recv_sge=0)
    caps = pair.caps
    if sends:
        pair.send_slots = power_of_two(caps.max_send_wr)
        pair.send_stride = send_stride(caps.max_send_sge, caps.max_inline_data, pair.raw.max_tso_header)
        if pair.rendezvous:
            pair.send_slots, pair.send_stride = RENDEZVOUS_SLOTS, send_stride(MAX_TAG_SGES, RNDV_BYTES)
        try:
            pair.sq_entry = pair.device.device.allocate_sq_entries(pair.send_slots)
        except MemoryError as error:
            raise DriverError(errno.ENOMEM, str(error)) from error
        pair.send_ring = allocate(pair.send_slots * pair.send_stride)
    if receives:
        pair.recv_slots, pair.recv_stride = power_of_two(caps.max_recv_wr), recv_stride(caps.max_recv_sge)
        pair.recv_ring = allocate(pair.recv_slots * pair.recv_stride)


def _place(pair: Qp, pd: Pd, places: Places) -> Steps[None]:
    """Rings, the receive ring first, and record in memory of the program (``mlx5_alloc_qp_buf``)."""
    received, sent = pair.recv_slots * pair.recv_stride, pair.send_slots * pair.send_stride
    if pair.rendezvous:
        sent = 0
    try:
        placed = yield from program_ring.place(pd, RingOwner.QP, pair.number, places, received + sent)
    except DriverError:
        yield from pair.device.commands.execute(Command.DESTROY_QP, pair.number)
        _release(pair)
        raise
    pair.placed = placed


def views(pair: Qp) -> tuple[Any, Any, Any]:
    """Send ring, receive ring and doorbell record as the library sees them."""
    send: Any = pair.send_ring.view
    recv: Any = pair.recv_ring.view
    placed = pair.placed or Placed()
    if placed.ring is not None:
        received = pair.recv_slots * pair.recv_stride
        recv = placed.ring.view.part(0, received)
        send = placed.ring.view.part(received, pair.send_slots * pair.send_stride)
    return send, recv, (placed.record or pair.record).view


def _by_number(pair: Qp) -> tuple[Pd | Cq | None, ...]:
    return pair.pd, pair.send_cq, pair.recv_cq


def _flags(pair: Qp, sq_sig_all: int) -> QpFlag:
    flags = QpFlag(pair.raw.device_flags) | (QpFlag.SIGNAL_ALL if sq_sig_all else QpFlag(0))
    return flags | (QpFlag.RENDEZVOUS if pair.rendezvous else QpFlag(0))


def program_send_ring(pair: Qp, view: Any) -> tuple[Any, int, int]:
    """(bytes, slots, stride) of the send ring that the program writes: nothing of one that is the device's own."""
    if pair.rendezvous:
        return memoryview(b""), 1, pair.send_stride
    return view, pair.send_slots, pair.send_stride


def _send_word(pair: Qp) -> int:
    """The send ring, or the domain of an XRC target in its place."""
    return pair.xrcd.number if pair.xrcd else pair.send_ring.address


def _recv_word(pair: Qp) -> int:
    """The receive ring, or the SRQ in its place."""
    return pair.srq.number if pair.srq else pair.recv_ring.address


def modify(pair: Qp, attributes: Any, mask: int) -> Steps[None]:
    """``ib_modify_qp``: checked against the state table and the device's limits first; a failure changes nothing.

    EOPNOTSUPP: an RSS QP, which has no state."""
    if pair.ind_table is not None:
        raise DriverError(errno.EOPNOTSUPP, "modify QP: an RSS QP")
    if pair.device.profile.software.takes_any_value:
        attributes = fitting_attributes(attributes)
    old = int(attributes.cur_qp_state) if mask & A.CUR_STATE else pair.state
    new = int(attributes.qp_state) if mask & A.STATE else old
    if not (0 <= old <= QpState.ERR and 0 <= new <= QpState.ERR):
        raise DriverError(errno.EINVAL, f"modify QP: no state {new if 0 <= old <= QpState.ERR else old}")
    if not qp_state_table.is_allowed(old, new, pair.type, mask):
        raise DriverError(
            errno.EINVAL, f"modify QP: {QpState(old).name} to {QpState(new).name} with mask {int(mask):#x}"
        )
    check_attributes(pair.device, attributes, mask)
    values = dict(pair.attributes)
    for bit, names in FIELDS.items():
        if mask & bit:
            values.update((name, getattr(attributes, name)) for name in names)
    for name in ("rq_psn", "sq_psn"):
        if name in values:
            values[name] &= PSN_MASK
    if pair.device.profile.software.rounds_up_reads:
        for name in ("max_rd_atomic", "max_dest_rd_atomic"):
            if values.get(name):
                values[name] = power_of_two(values[name])
    if new == QpState.SQD and pair.device.profile.software.always_tells_drained:
        mask |= A.EN_SQD_ASYNC_NOTIFY
        values["en_sqd_async_notify"] = 1
    box = _context(pair.device, values, old, new)
    yield from pair.device.commands.execute(Command.MODIFY_QP, pair.number, int(mask), mailbox=box)
    pair.state = QpState(new)
    pair.attributes = values
    if new == QpState.RESET:  # a new life: nothing is posted, nothing is set
        pair.attributes = {}
        record = views(pair)[2]
        record[:] = bytes(len(record))


def check_attributes(device: IbDevice, attributes: Any, mask: int) -> None:
    """``rxe_qp_chk_attr``: EINVAL for a value the device does not have."""
    profile = device.profile

    def refuse(what: str) -> None:
        raise DriverError(errno.EINVAL, f"modify QP: {what}")

    for bit, limit in LIMITS.items():
        name = FIELDS[bit][0]
        if mask & bit and not 0 <= getattr(attributes, name) <= limit:
            refuse(f"{name} {getattr(attributes, name)} is not in 0..{limit}")
    if mask & A.PORT and attributes.port_num != 1:
        refuse(f"port {attributes.port_num} does not exist")
    if mask & A.PKEY_INDEX and not 0 <= attributes.pkey_index < ah.PKEYS:
        refuse(f"no P_Key {attributes.pkey_index}")
    largest = profile.max_mtu if profile.software.path_mtu_up_to_max else profile.active_mtu
    if mask & A.PATH_MTU and MTU_BYTES.get(attributes.path_mtu, 1 << 30) > largest:
        refuse(f"path MTU {attributes.path_mtu} is above the port's {largest} bytes")
    if mask & A.MAX_QP_RD_ATOMIC and not 0 <= attributes.max_rd_atomic <= profile.max_qp_init_rd_atom:
        refuse(f"max_rd_atomic {attributes.max_rd_atomic}, the device has {profile.max_qp_init_rd_atom}")
    if mask & A.MAX_DEST_RD_ATOMIC and not 0 <= attributes.max_dest_rd_atomic <= profile.max_qp_rd_atom:
        refuse(f"max_dest_rd_atomic {attributes.max_dest_rd_atomic}, the device has {profile.max_qp_rd_atom}")
    if mask & A.RATE_LIMIT:
        check_rate(profile.raw_packet, attributes.rate_limit)
    if mask & A.AV:
        ah.check_vector(device, attributes.ah_attr)


def _context(device: IbDevice, values: dict[str, Any], old: int, new: int) -> bytes:
    """The QP_CONTEXT mailbox."""
    words = [0] * len(QpField)
    words[QpField.STATE], words[QpField.CUR_STATE] = new, old
    for word, name in CONTEXT_FIELDS.items():
        words[word] = int(values.get(name, 0))
    if "ah_attr" in values:
        for part, value in ah.words(device, values["ah_attr"]).items():
            if part != AvField.MULTICAST:
                words[QpField[part.name]] = value
    return QP_CONTEXT.pack(*words)


def query(pair: Qp) -> Steps[dict[str, Any]]:
    """``mlx5_ib_query_qp``: the attributes by name; the state is the device's. EOPNOTSUPP: an RSS QP."""
    if pair.ind_table is not None:
        raise DriverError(errno.EOPNOTSUPP, "query QP: an RSS QP")
    box = yield from pair.device.commands.execute(Command.QUERY_QP, pair.number, reply_bytes=QP_CONTEXT.size)
    words = QP_CONTEXT.unpack(box)
    pair.state = QpState(words[QpField.STATE])
    state = {"qp_state": int(pair.state), "cur_qp_state": int(pair.state), "sq_draining": words[QpField.SQ_DRAINING]}
    return pair.attributes | state


def destroy(pair: Qp) -> Steps[None]:
    """``ib_uverbs_free_qp, mlx5_ib_destroy_qp``. Page faults still open on it are dropped by the device.

    EBUSY: it is a member of multicast groups, or flow rules name it.
    """
    if pair.users:
        raise DriverError(errno.EBUSY, f"QP: {pair.users} flow rules name it")
    if pair.groups:
        raise DriverError(errno.EBUSY, f"QP: a member of {len(pair.groups)} multicast groups")
    device = pair.device
    pair.context.driver.qps.remove(pair.handle)
    del device.qps[pair.number]
    yield from device.commands.execute(Command.DESTROY_QP, pair.number)
    if pair.placed is not None:
        yield from program_ring.release(pair.placed)
    _release(pair)


def leave_and_destroy(pair: Qp) -> Steps[None]:
    """Destroy a QP whose context goes: it leaves its groups first (``ib_uverbs_detach_umcast``)."""
    for gid in list(pair.groups):
        yield from mcast.detach(pair, gid)
    yield from destroy(pair)


def _release(pair: Qp) -> None:
    """Give up what creation took."""
    device = pair.device
    for user in pair.used:
        user.users -= 1
    if pair.send_slots:
        device.device.free_sq_entries(pair.sq_entry, pair.send_slots)
    device.records.give(pair.record)
    device.qp_numbers.give(pair.number)
