"""Commands on completion queues: CREATE_CQ, DESTROY_CQ, RESIZE_CQ, MODIFY_CQ (mlx5 ``cq.c``; ``ibv_resize_cq(3)``).

RESIZE_CQ here is atomic: the device copies what waits. mlx5 writes a CQE that says "go on in the other ring" and its
library copies; a program cannot tell the difference.
"""

from nicemu._jit import copy_bytes, jit, store32
from nicemu.abi.command import Command, CqFlag, Status
from nicemu.abi.rings import CQE_BYTES, CQE_OWNER
from nicemu.nic.command_slot import param
from nicemu.nic.cq import owner_word, stop_timer
from nicemu.nic.program_ring import cqes_consumed
from nicemu.tables.rows import cq

CREATE_CQ, DESTROY_CQ = int(Command.CREATE_CQ), int(Command.DESTROY_CQ)
RESIZE_CQ, MODIFY_CQ = int(Command.RESIZE_CQ), int(Command.MODIFY_CQ)
OK, BAD_PARAM, BAD_RESOURCE = int(Status.OK), int(Status.BAD_PARAM), int(Status.BAD_RESOURCE)
IGNORE_OVERRUN = int(CqFlag.IGNORE_OVERRUN)
NS_PER_US = 1000


@jit
def is_cq_command(opcode):
    """One of this file's."""
    return opcode == CREATE_CQ or opcode == DESTROY_CQ or opcode == RESIZE_CQ or opcode == MODIFY_CQ


@jit
def execute(world, n, opcode, at):
    """Run a command on a CQ; its status."""
    cqn = param(at, 0)
    if not 0 < cqn < n.cq_count:
        return BAD_RESOURCE
    row = n.cq_base + cqn
    if opcode == CREATE_CQ:
        return create(world, n, row, at)
    if cq(world, row).valid == 0:
        return BAD_RESOURCE
    if opcode == RESIZE_CQ:
        return resize(world, row, at)
    stop_timer(world, row)
    if opcode == MODIFY_CQ:
        return moderate(world, row, at)
    return destroy(world, row)


@jit
def create(world, n, row, at):
    """CREATE_CQ. The timer and the place in a held list outlive a CQ: they are not touched."""
    q = cq(world, row)
    if q.valid:
        return BAD_RESOURCE
    q.nic = n.number
    q.number = row - n.cq_base
    q.ring = param(at, 1)
    q.slots = param(at, 2)
    q.doorbell_record = param(at, 3)
    q.eqn = n.eq_base + param(at, 4)
    q.ignore_overrun = param(at, 5) & IGNORE_OVERRUN
    q.ring_mkey = q.record_mkey = 0
    q.produced = q.armed = q.watch = q.overrun = 0
    q.moderation_count = q.moderation_ns = q.ripe = 0
    q.valid = 1
    return OK


@jit
def destroy(world, row):
    """DESTROY_CQ. An event that waits for room in the EQ is forgotten."""
    q = cq(world, row)
    q.valid = 0
    if q.event_held:
        q.event_held = 2
    return OK


@jit
def moderate(world, row, at):
    """MODIFY_CQ."""
    if param(at, 1) < 0 or param(at, 2) < 0:
        return BAD_PARAM
    q = cq(world, row)
    q.moderation_count = param(at, 1)
    q.moderation_ns = param(at, 2) * NS_PER_US
    q.ripe = 0
    return OK


@jit
def resize(world, row, at):
    """RESIZE_CQ: what waits moves in order; owner words of free slots say that nothing is there yet."""
    q = cq(world, row)
    ring, slots, entries = param(at, 1), param(at, 2), param(at, 3)
    if q.ring_mkey:
        return BAD_PARAM
    consumed = cqes_consumed(world, row)
    if slots <= 0 or slots & (slots - 1) or not 0 <= consumed <= q.produced:
        return BAD_PARAM
    if q.produced - consumed > min(entries, slots, q.slots):
        return BAD_PARAM
    for counter in range(consumed, consumed + slots):
        to = ring + (counter & (slots - 1)) * CQE_BYTES
        is_there = counter < q.produced
        if is_there:
            copy_bytes(to, q.ring + (counter & (q.slots - 1)) * CQE_BYTES, CQE_BYTES)
        word = owner_word(counter, slots)
        store32(to + CQE_OWNER, word if is_there else word ^ 1)
    q.ring = ring
    q.slots = slots
    return OK
