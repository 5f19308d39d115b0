"""Work queues: receive queues that an indirection table spreads frames over (``mlx5_ib_create_wq, mlx5_ib_modify_wq``).

A WQ takes its number from those of the QPs, so completions name it as they name a QP.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import QP_CONTEXT, RX_FLAGS_MASK, WORK_QUEUE, Command, QpField, QpFlag
from nicemu.abi.rings import power_of_two, recv_stride
from nicemu.abi.verbs import QpAttrMask, QpState, WqAttrMask, WqFlag, WqState
from nicemu.driver.errors import DriverError
from nicemu.driver.ring import Memory
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context
    from nicemu.driver.cq import Cq
    from nicemu.driver.device import IbDevice
    from nicemu.driver.pd import Pd

RQ = 0
"""``ibv_wq_type``: the only one."""
DEVICE_STATE = {WqState.RESET: QpState.RESET, WqState.RDY: QpState.RTR, WqState.ERR: QpState.ERR}
RX_FLAGS = {WqFlag.CVLAN_STRIPPING: QpFlag.CVLAN_STRIPPING, WqFlag.SCATTER_FCS: QpFlag.SCATTER_FCS}


@dataclass(eq=False, slots=True)
class Wq:
    """``users``: indirection tables that it is in, as often as it is. ``state``: as last set."""

    pd: Pd
    cq: Cq
    number: int
    max_wr: int
    max_sge: int
    slots: int
    stride: int
    ring: Memory
    record: Memory
    flags: int = 0
    state: WqState = WqState.RESET
    handle: int = 0
    users: int = 0

    @property
    def context(self) -> Context:
        """Who made it."""
        return self.pd.context


def check_flags(device: IbDevice, flags: int) -> None:
    """EINVAL: no such flag. EOPNOTSUPP: the device does not do it; DELAY_DROP never."""
    raw = device.profile.raw_packet
    if flags & ~sum(WqFlag):
        raise DriverError(errno.EINVAL, f"WQ: flags {flags:#x}")
    able = {WqFlag.CVLAN_STRIPPING: raw.cvlan_stripping, WqFlag.SCATTER_FCS: raw.scatter_fcs,
            WqFlag.PCI_WRITE_END_PADDING: raw.end_padding}  # fmt: skip
    for flag in WqFlag:
        if flags & flag and not able.get(flag, False):
            raise DriverError(errno.EOPNOTSUPP, f"WQ: the device has no {flag.name}")


def device_flags(flags: int) -> int:
    """``ibv_wq_flags`` as the device takes them."""
    return sum(device for flag, device in RX_FLAGS.items() if flags & flag)


def create(pd: Pd, cq: Cq, kind: int, size: tuple[int, int], flags: int = 0) -> Steps[Wq]:
    """A WQ in RESET. ``size``: WQEs, SGEs of each.

    EINVAL: depth, type, flags, a CQ of another context. ENOMEM: out of WQs. EOPNOTSUPP: no WQs on this device, a flag.
    """
    context = pd.context
    device, (max_wr, max_sge) = context.device, size
    raw = device.profile.raw_packet
    if raw is None or not raw.max_wq_type_rq:
        raise DriverError(errno.EOPNOTSUPP, "WQ: the device does not have them")
    if kind != RQ:
        raise DriverError(errno.EINVAL, f"WQ: no type {kind}")
    if not 1 <= max_wr <= device.profile.max_qp_wr or not 0 <= max_sge <= device.profile.max_sge:
        raise DriverError(errno.EINVAL, f"WQ: {max_wr} WQEs of {max_sge} SGEs")
    if cq.context is not context:
        raise DriverError(errno.EINVAL, "WQ: a CQ of another context")
    check_flags(device, flags)
    if len(device.wqs) >= raw.max_wq_type_rq:
        raise DriverError(errno.ENOMEM, f"WQ: all {raw.max_wq_type_rq} in use")
    slots, stride = power_of_two(max_wr), recv_stride(max_sge)
    made = Wq(pd, cq, device.qp_numbers.take(), max_wr, max_sge, slots, stride,
              context.driver.allocate(slots * stride), device.records.take(), flags)  # fmt: skip
    for user in (pd, cq):
        user.users += 1
    try:
        yield from device.commands.execute(
            Command.CREATE_QP, made.number, WORK_QUEUE, pd.number, cq.number, cq.number, 0, 0, 0, made.ring.address,
            slots, stride, made.record.address, device_flags(flags), 0,
        )  # fmt: skip
    except DriverError:
        _release(made)
        raise
    made.handle = context.driver.wqs.add(made)
    device.wqs[made.number] = made
    return made


def modify(queue: Wq, mask: int, attributes: Any) -> Steps[None]:
    """``ibv_modify_wq(3)``. ``attributes``: ``wq_state, curr_wq_state, flags, flags_mask``.

    EINVAL: unknown mask bit or state, another current state than it says, ERR to RDY. EOPNOTSUPP: a flag.
    """
    if mask & ~sum(WqAttrMask):
        raise DriverError(errno.EINVAL, f"modify WQ: mask {mask:#x}")
    if mask & WqAttrMask.CURR_STATE and attributes.curr_wq_state != queue.state:
        raise DriverError(errno.EINVAL, f"modify WQ: it is in {queue.state.name}")
    new = attributes.wq_state if mask & WqAttrMask.STATE else queue.state
    if new not in DEVICE_STATE or (queue.state == WqState.ERR and new == WqState.RDY):
        raise DriverError(errno.EINVAL, f"modify WQ: {queue.state.name} to state {new}")
    flags = queue.flags
    if mask & WqAttrMask.FLAGS:
        flags = flags & ~attributes.flags_mask | attributes.flags & attributes.flags_mask
        check_flags(queue.context.device, attributes.flags & attributes.flags_mask)
    words = [0] * len(QpField)
    words[QpField.STATE], words[QpField.RX_FLAGS] = DEVICE_STATE[WqState(new)], device_flags(flags)
    changed = RX_FLAGS_MASK | (int(QpAttrMask.STATE) if mask & WqAttrMask.STATE else 0)
    device = queue.context.device
    yield from device.commands.execute(Command.MODIFY_QP, queue.number, changed, mailbox=QP_CONTEXT.pack(*words))
    queue.state, queue.flags = WqState(new), flags
    if mask & WqAttrMask.STATE and new == WqState.RESET:
        queue.record.view[:] = bytes(len(queue.record.view))


def destroy(queue: Wq) -> Steps[None]:
    """EBUSY: an indirection table uses it."""
    if queue.users:
        raise DriverError(errno.EBUSY, f"WQ: in {queue.users} entries of indirection tables")
    device = queue.context.device
    queue.context.driver.wqs.remove(queue.handle)
    del device.wqs[queue.number]
    yield from device.commands.execute(Command.DESTROY_QP, queue.number)
    _release(queue)


def _release(queue: Wq) -> None:
    device = queue.context.device
    for user in (queue.pd, queue.cq):
        user.users -= 1
    device.records.give(queue.record)
    device.qp_numbers.give(queue.number)
