"""Queue pairs (``mlx5_ib_create_qp``, ``ib_modify_qp_with_udata``): RC. Other transports: EOPNOTSUPP.

Attributes travel by the names of ``ibv_qp_attr``. The driver keeps the values the program set; the state and what
the hardware changes are asked of the device.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import QP_CONTEXT, Command, QpField
from nicemu.abi.rings import power_of_two, recv_stride, send_stride
from nicemu.abi.verbs import MTU_BYTES, QpAttrMask, QpState, QpType
from nicemu.driver import ah, qp_state_table
from nicemu.driver.errors import DriverError
from nicemu.driver.ring import Memory
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.cq import Cq
    from nicemu.driver.device import IbDevice
    from nicemu.driver.pd import Pd

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
}  # fmt: skip
"""Words of the device's QP context that hold an attribute as it is."""

LIMITS = {A.TIMEOUT: 31, A.RETRY_CNT: 7, A.RNR_RETRY: 7, A.MIN_RNR_TIMER: 31, A.DEST_QPN: (1 << 24) - 1}
"""Largest value of an attribute (its width on the wire or in the QP context)."""
PSN_MASK = (1 << 24) - 1
SIGNAL_ALL = 1


@dataclass(eq=False, slots=True)
class Qp:
    """``attributes``: what the program set, by name. ``state``: as last heard of."""

    pd: Pd
    type: QpType
    number: int
    send_cq: Cq
    recv_cq: Cq
    caps: Any
    send_ring: Memory
    send_slots: int
    send_stride: int
    recv_ring: Memory
    recv_slots: int
    recv_stride: int
    record: Memory
    sq_entry: int
    state: QpState = QpState.RESET
    attributes: dict[str, Any] = field(default_factory=dict)
    handle: int = 0

    @property
    def device(self) -> IbDevice:
        """The device it is on."""
        return self.pd.context.device


def check_capabilities(profile: Any, caps: Any) -> None:
    """EINVAL: more than the device has."""
    limits = {"max_send_wr": profile.max_qp_wr, "max_recv_wr": profile.max_qp_wr, "max_send_sge": profile.max_sge,
              "max_recv_sge": profile.max_sge, "max_inline_data": profile.max_inline_data}  # fmt: skip
    for name, limit in limits.items():
        if not 0 <= getattr(caps, name) <= limit:
            raise DriverError(errno.EINVAL, f"QP: {name} {getattr(caps, name)}, the device has {limit}")


def check_type(kind: int) -> QpType:
    """EINVAL: no such type. EOPNOTSUPP: not modelled."""
    if kind not in QpType.__members__.values():
        raise DriverError(errno.EINVAL, f"QP: no type {kind}")
    if kind != QpType.RC:
        raise DriverError(errno.EOPNOTSUPP, f"QP: transport {QpType(kind).name} is not supported")
    return QpType(kind)


def create(pd: Pd, kind: int, cqs: tuple[Cq, Cq], caps: Any, sq_sig_all: int) -> Steps[Qp]:
    """A QP in RESET. ``cqs``: send, receive. The capabilities granted are those asked for."""
    device = pd.context.device
    check_capabilities(device.profile, caps)
    qp_type = check_type(kind)
    if any(cq.context is not pd.context for cq in cqs):
        raise DriverError(errno.EINVAL, "QP: a CQ of another context")
    send_slots, recv_slots = power_of_two(caps.max_send_wr), power_of_two(caps.max_recv_wr)
    stride, rq_stride = send_stride(caps.max_send_sge, caps.max_inline_data), recv_stride(caps.max_recv_sge)
    try:
        sq_entry = device.device.allocate_sq_entries(send_slots)
    except MemoryError as error:
        raise DriverError(errno.ENOMEM, str(error)) from error
    number = device.qp_numbers.take()
    allocate = pd.context.driver.allocate
    pair = Qp(pd, qp_type, number, *cqs, caps, allocate(send_slots * stride), send_slots, stride,
              allocate(recv_slots * rq_stride), recv_slots, rq_stride, device.records.take(), sq_entry)  # fmt: skip
    for user in (pd, *cqs):
        user.users += 1
    try:
        yield from device.commands.execute(
            Command.CREATE_QP, number, qp_type, pd.number, cqs[0].number, cqs[1].number, pair.send_ring.address,
            send_slots, stride, pair.recv_ring.address, recv_slots, rq_stride, pair.record.address,
            SIGNAL_ALL if sq_sig_all else 0, pair.sq_entry,
        )  # fmt: skip
    except DriverError:
        _release(pair)
        raise
    pair.handle = pd.context.driver.qps.add(pair)
    device.qps[number] = pair
    return pair


def modify(pair: Qp, attributes: Any, mask: int) -> Steps[None]:
    """``ib_modify_qp``: checked against the state table and the device's limits first; a failure changes nothing."""
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
    box = _context(pair.device, values, old, new)
    yield from pair.device.commands.execute(Command.MODIFY_QP, pair.number, int(mask), mailbox=box)
    pair.state = QpState(new)
    pair.attributes = values
    if new == QpState.RESET:  # a new life: nothing is posted, nothing is set
        pair.attributes = {}
        pair.record.view[:] = bytes(len(pair.record.view))


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
    if mask & A.PKEY_INDEX and not 0 <= attributes.pkey_index < profile.max_pkeys:
        refuse(f"no P_Key {attributes.pkey_index}")
    if mask & A.PATH_MTU and MTU_BYTES.get(attributes.path_mtu, 1 << 30) > profile.active_mtu:
        refuse(f"path MTU {attributes.path_mtu} is above the port's {profile.active_mtu} bytes")
    if mask & A.MAX_QP_RD_ATOMIC and not 0 <= attributes.max_rd_atomic <= profile.max_qp_init_rd_atom:
        refuse(f"max_rd_atomic {attributes.max_rd_atomic}, the device has {profile.max_qp_init_rd_atom}")
    if mask & A.MAX_DEST_RD_ATOMIC and not 0 <= attributes.max_dest_rd_atomic <= profile.max_qp_rd_atom:
        refuse(f"max_dest_rd_atomic {attributes.max_dest_rd_atomic}, the device has {profile.max_qp_rd_atom}")
    if mask & A.AV:
        ah.check_vector(device, attributes.ah_attr)


def _context(device: IbDevice, values: dict[str, Any], old: int, new: int) -> bytes:
    """The QP_CONTEXT mailbox. A destination that no device has is NIC 0: packets to it are lost."""
    words = [0] * len(QpField)
    words[QpField.STATE], words[QpField.CUR_STATE] = new, old
    for word, name in CONTEXT_FIELDS.items():
        words[word] = int(values.get(name, 0))
    if "ah_attr" in values:
        words[QpField.DEST_NIC] = device.device.route(values["ah_attr"].dgid)
    return QP_CONTEXT.pack(*words)


def query(pair: Qp) -> Steps[dict[str, Any]]:
    """``mlx5_ib_query_qp``: the attributes by name; the state is the device's."""
    box = yield from pair.device.commands.execute(Command.QUERY_QP, pair.number, reply_bytes=QP_CONTEXT.size)
    words = QP_CONTEXT.unpack(box)
    pair.state = QpState(words[QpField.STATE])
    state = {"qp_state": int(pair.state), "cur_qp_state": int(pair.state), "sq_draining": words[QpField.SQ_DRAINING]}
    return pair.attributes | state


def destroy(pair: Qp) -> Steps[None]:
    """``mlx5_ib_destroy_qp``. Page faults still open on it are dropped by the device."""
    device = pair.device
    pair.pd.context.driver.qps.remove(pair.handle)
    del device.qps[pair.number]
    yield from device.commands.execute(Command.DESTROY_QP, pair.number)
    _release(pair)


def _release(pair: Qp) -> None:
    device = pair.device
    for user in (pair.pd, pair.send_cq, pair.recv_cq):
        user.users -= 1
    device.device.free_sq_entries(pair.sq_entry, pair.send_slots)
    device.records.give(pair.record)
    device.qp_numbers.give(pair.number)
