"""Flow rules (``ib_uverbs_ex_create_flow, mlx5_ib_create_flow``): which frames a raw packet QP gets."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicemu.abi.command import Command, FlowType
from nicemu.abi.verbs import QpType
from nicemu.driver import flow_spec
from nicemu.driver.ah import PORTS
from nicemu.driver.errors import DriverError
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.qp import Qp

DONT_TRAP, EGRESS = 2, 4
"""``ibv_flow_flags``."""


@dataclass(frozen=True, slots=True)
class FlowAttributes:
    """``ibv_flow_attr``, and the specs behind it as the program's bytes."""

    type: int
    priority: int
    num_of_specs: int
    port: int
    flags: int
    specs: bytes


@dataclass(eq=False, slots=True)
class Flow:
    """A rule on the device."""

    qp: Qp
    number: int
    handle: int = 0


def create(qp: Qp, attr: FlowAttributes) -> Steps[Flow]:
    """EINVAL: a QP that is no raw packet QP, an unknown type, flag, spec or port; DONT_TRAP or specs with another type
    than NORMAL. EOPNOTSUPP: a UD QP, EGRESS, specs that the device does not have, no flow steering. ENOMEM: out of
    rules.
    """
    if qp.type == QpType.UD or not qp.device.profile.raw_packet or not qp.device.profile.raw_packet.max_flows:
        raise DriverError(errno.EOPNOTSUPP, f"flow: not for {qp.type.name} QPs of this device")
    if qp.type != QpType.RAW_PACKET:
        raise flow_spec.refuse(f"not for {qp.type.name} QPs")
    match = _checked(attr)
    device = qp.device
    rule = Flow(qp, device.flow_numbers.take())
    try:
        yield from device.commands.execute(
            Command.CREATE_FLOW, rule.number, qp.number, attr.type, attr.priority, int(bool(attr.flags & DONT_TRAP)),
            mailbox=flow_spec.words(match),
        )  # fmt: skip
    except DriverError:
        device.flow_numbers.give(rule.number)
        raise
    qp.users += 1
    rule.handle = qp.context.driver.flows.add(rule)
    return rule


def _checked(attr: FlowAttributes) -> flow_spec.Match:
    if attr.type not in FlowType.__members__.values():
        raise flow_spec.refuse(f"no type {attr.type}")
    if not 1 <= attr.port <= PORTS:
        raise flow_spec.refuse(f"port {attr.port} does not exist")
    if attr.flags & EGRESS:
        raise DriverError(errno.EOPNOTSUPP, "flow: no rules for what is sent")
    if attr.flags & ~DONT_TRAP or (attr.flags and attr.type != FlowType.NORMAL):
        raise flow_spec.refuse(f"flags {attr.flags:#x} with type {attr.type}")
    match = flow_spec.parse(attr.specs, attr.num_of_specs)
    if match and attr.type != FlowType.NORMAL:
        raise flow_spec.refuse("specs with a type that takes none")
    return match


def destroy(rule: Flow) -> Steps[None]:
    """``ib_destroy_flow``."""
    device = rule.qp.device
    rule.qp.context.driver.flows.remove(rule.handle)
    yield from device.commands.execute(Command.DESTROY_FLOW, rule.number)
    rule.qp.users -= 1
    device.flow_numbers.give(rule.number)
