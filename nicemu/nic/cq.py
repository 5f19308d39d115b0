"""Completion queues: CQEs into host rings, arming, solicited events, moderation, overrun (Linux rxe_cq.c).

An armed CQ raises one event. Moderation (``ibv_modify_cq(3)``) puts it off until so many CQEs came since it was armed,
or so long after the first of them. A solicited arming counts solicited and failed CQEs only.
"""

from nicemu._jit import call, jit, store32, store64
from nicemu.abi import rings
from nicemu.abi.rings import CQE_BYTES, VENDOR_SYNDROME, EqeType
from nicemu.abi.verbs import AsyncEvent, WcOpcode
from nicemu.nic import hooks
from nicemu.nic.eq import link_held, post_async, post_eqe
from nicemu.nic.hooks import ask
from nicemu.nic.program_ring import CQE_SLOT, cqes_consumed, move
from nicemu.tables import units
from nicemu.tables.rows import control, cq, eq, nic, vector
from nicemu.tables.trace import Ev, trace, two
from nicemu.tables.wheel import push

CQE, COMP, CQ_ERR = int(Ev.CQE), int(EqeType.COMP), int(AsyncEvent.CQ_ERR)
ARM_NEXT, ARM_SOLICITED, WC_RECV = 1, 2, int(WcOpcode.RECV)


@jit
def owner_word(counter, slots):
    """The owner word that says the record at ``counter`` is there (``abi.rings.owner``)."""
    return (counter // slots + 1) & 1


@jit
def post_cqe(world, row, wr_id, qpn, status, opcode, lengths, solicited):
    """Write a CQE. ``lengths``: (byte_len, imm_data, wc_flags, wqe counter, source QP).

    True if it went in; an overrun CQ takes nothing more. True also if firmware makes nothing of a lost one.
    """
    return post_tagged_cqe(world, row, wr_id, qpn, status, opcode, lengths, solicited, 0)


@jit
def post_tagged_cqe(world, row, wr_id, qpn, status, opcode, lengths, solicited, tag):
    """As ``post_cqe``. Tag matching has no use for the source QP and the P_Key index: the program's 32 bits of the
    header and the ``tag`` stand there."""
    q = cq(world, row)
    c = control(world, 0)
    if q.valid == 0 or q.overrun:
        return False
    if q.produced - cqes_consumed(world, row) >= q.slots - nic(world, q.nic).cq_spare and q.ignore_overrun == 0:
        q.overrun = ask(world, q.nic, hooks.CQ_OVERRUN, row, opcode)
        nic(world, q.nic).cq_overruns += 1
        post_async(world, q.nic, CQ_ERR, q.number)
        return q.overrun == 0 and opcode < WC_RECV
    at = q.ring + (q.produced & (q.slots - 1)) * CQE_BYTES
    store64(at + rings.CQE_WR_ID, wr_id)
    store32(at + rings.CQE_QP_NUM, qpn)
    store32(at + rings.CQE_SRC_QP, lengths[4])
    store32(at + rings.CQE_BYTE_LEN, lengths[0])
    store32(at + rings.CQE_IMM, lengths[1])
    store32(at + rings.CQE_STATUS, status)
    store32(at + rings.CQE_OPCODE, opcode)
    store32(at + rings.CQE_WC_FLAGS, lengths[2])
    store32(at + rings.CQE_VENDOR_ERR, VENDOR_SYNDROME + status if status != 0 else 0)
    store64(at + rings.CQE_TIMESTAMP, c.now)
    store32(at + rings.CQE_WQE_COUNTER, lengths[3] & 0xFFFFFFFF)
    store32(at + rings.CQE_TAG_LOW, tag & 0xFFFFFFFF)
    store32(at + rings.CQE_TAG_HIGH, (tag >> 32) & 0xFFFFFFFF)
    store32(at + rings.CQE_OWNER, owner_word(q.produced, q.slots))
    if q.ring_mkey:
        move(world, row, CQE_SLOT, q.produced)
    q.produced += 1
    nic(world, q.nic).cqes += 1
    trace(world, CQE, q.nic, q.number, qpn, status, two(opcode, lengths[3]))
    if q.watch:
        c.cqe_hits += 1
    if q.armed == ARM_NEXT or (q.armed == ARM_SOLICITED and (solicited or wakes(world, row, status, opcode))):
        call(vector(world, units.CQ_RIPEN).address, world, row, 0)
    return True


@jit
def wakes(world, row, status, opcode):
    """A completion that is not solicited is an error, and for firmware that counts as much."""
    return status != 0 and ask(world, cq(world, row).nic, hooks.ERROR_WAKES, row, status << 8 | opcode) != 0


def ripen(world, row, _):
    """CQ_RIPEN: a CQE came that the CQ is armed for: its event, now or when moderation lets it."""
    q = cq(world, row)
    q.ripe += 1
    unmoderated = q.moderation_count == 0 and q.moderation_ns == 0
    if unmoderated or (q.moderation_count > 0 and q.ripe >= q.moderation_count):
        raise_event(world, row)
    elif q.moderation_ns > 0 and q.deadline == 0:
        start_timer(world, row)
    return 0


@jit
def raise_event(world, row):
    """The completion event of an armed CQ. An EQ without room holds it."""
    q = cq(world, row)
    q.armed = 0
    q.ripe = 0
    stop_timer(world, row)
    if post_eqe(world, q.eqn, COMP, 0, (q.number, 0, 0, 0, 0, 0, 0)):
        return
    nic(world, q.nic).cq_events_held += 1
    if q.event_held == 0:
        q.next_held = 0
        e = eq(world, q.eqn)
        if e.held_head != 0:
            cq(world, e.held_tail).next_held = row
        link_held(world, q.eqn, row)
    q.event_held = 1


@jit
def release_event(world, row):
    """The EQ has room again: post what was held for this CQ."""
    q = cq(world, row)
    due = q.event_held == 1 and q.valid != 0
    q.event_held = 0
    if due:
        post_eqe(world, q.eqn, COMP, 0, (q.number, 0, 0, 0, 0, 0, 0))


@jit
def start_timer(world, row):
    """Moderation: the event comes ``moderation_ns`` from now at the latest."""
    q = cq(world, row)
    c = control(world, 0)
    q.deadline = c.now + q.moderation_ns
    if q.timer_event:
        c.stale -= 1
    else:
        q.timer_event = 1
        push(world, q.deadline, units.CQ_TIMER, row, 0)


@jit
def stop_timer(world, row):
    """Turn the timer off; its event stays in the wheel and counts as stale."""
    q = cq(world, row)
    if q.deadline != 0:
        q.deadline = 0
        control(world, 0).stale += 1


def moderated(world, row, _):
    """CQ_TIMER: the time since the first CQE is over."""
    q = cq(world, row)
    c = control(world, 0)
    if q.deadline == 0:
        q.timer_event = 0
        c.stale -= 1
    elif c.now < q.deadline:
        push(world, q.deadline, units.CQ_TIMER, row, 0)
    else:
        q.timer_event = 0
        q.deadline = 0
        if q.armed:
            raise_event(world, row)
    return 0


def arm(world, row, kind):
    """CQ_ARM: one event for the next completion (1) or the next solicited or failed one (2)."""
    q = cq(world, row)
    if q.valid:
        if q.armed == 0:
            q.ripe = 0
        q.armed = ARM_NEXT if q.armed == ARM_NEXT else kind
    return 0
