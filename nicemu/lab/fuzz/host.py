"""What stands around the device in a fuzz run, in compiled code: the loop, the driver, a program that reads its queues
and brings dead QPs back."""

from nicemu._jit import call, jit, load32, load64, store32, store64
from nicemu.abi import command as abi
from nicemu.abi import rings
from nicemu.abi.command import Command, QpField
from nicemu.abi.verbs import QpAttrMask, QpState
from nicemu.lab.fuzz.dice import draw, one_in
from nicemu.lab.fuzz.outcome import before_event, note
from nicemu.lab.fuzz.tables import ASYNCS_AT, STATUSES_AT, Stuck, counter, fuzz, queue, region, shared, target
from nicemu.nic.dispatch import goes_on, run_event, stop_reason
from nicemu.nic.lent import keep_all
from nicemu.tables import units
from nicemu.tables.records import Stop
from nicemu.tables.rows import control, cq, eq, fault, frame_stamp, nic, qp, srq, vector
from nicemu.tables.wheel import push

INTERRUPT, TRAPPED = int(Stop.INTERRUPT), int(Stop.TRAP)
MODIFY_QP, RESUME = int(Command.MODIFY_QP), int(Command.PAGE_FAULT_RESUME)
UPDATE_MTT, ZAP_MTT = int(Command.UPDATE_MTT), int(Command.ZAP_MTT)
CREATE_SRQ, DESTROY_SRQ = int(Command.CREATE_SRQ), int(Command.DESTROY_SRQ)
CREATE_CQ, DESTROY_CQ = int(Command.CREATE_CQ), int(Command.DESTROY_CQ)
RESET, INIT, RTR, RTS, ERR = (int(s) for s in (QpState.RESET, QpState.INIT, QpState.RTR, QpState.RTS, QpState.ERR))
STATE_MASK, STATE = int(QpAttrMask.STATE), int(QpField.STATE)
TRAP, ENDLESS, COMMAND_LOST = int(Stuck.TRAP), int(Stuck.ENDLESS), int(Stuck.COMMAND)
NOT_IDLE = int(Stuck.NOT_IDLE)
COMMAND_EQN, ASYNC_EQN, PAGE_FAULT_EQN = 1, 2, 3
LONGEST_NS = 2_000_000_000
"""Longer than any timer of the device that has been set: an RNR wait of 655 ms."""
STEP_NS = 20
STARTED_NS = 1500
"""A target in SQD or SQE has begun to send before."""
PAGE_SHIFT, FRAME_SHIFT, STAMP_SHIFT = 12, abi.MTT_FRAME_SHIFT, abi.MTT_STAMP_SHIFT


@jit
def give_up(f, reason, at):
    """The kernel stops at the first reason."""
    row = fuzz(f, 0)
    if row.stuck == 0:
        row.stuck = reason
        row.stuck_at = at


@jit
def go_on(world, f, until):
    """Run events up to ``until``; interrupts are taken and forgotten."""
    c = control(world, 0)
    row = fuzz(f, 0)
    while row.stuck == 0:
        if goes_on(world, until):
            row.events += 1
            if row.events > row.most_events:
                give_up(f, ENDLESS, 0)
            before = before_event(world, f)
            run_event(world)
            if before >= 0:
                note(world, f, before)
            continue
        stop = stop_reason(c)
        if stop == INTERRUPT:
            c.interrupts = 0
        elif stop == TRAPPED:
            give_up(f, TRAP, c.trap)
        else:
            c.now = max(c.now, until)
            break
    keep_all(world, 0)


@jit
def command(world, nic_number, slot, opcode, words):
    """The device decodes a command now. ``words``: three parameters and the mailbox."""
    n = nic(world, nic_number)
    at = n.command_ring + (slot & (abi.COMMAND_SLOTS - 1)) * abi.COMMAND_BYTES
    store32(at, opcode)
    for i in range(3):
        store64(at + abi.COMMAND_PARAMS + 8 * i, words[i])
    store64(at + abi.COMMAND_MAILBOX, words[3])
    call(vector(world, units.COMMAND).address, world, nic_number, slot)


@jit
def next_slot(f):
    """A command slot."""
    row = fuzz(f, 0)
    row.slot = (row.slot + 1) & (abi.COMMAND_SLOTS - 1)
    return row.slot


@jit
def set_state(world, f, t, state, mask):
    """MODIFY_QP of a target."""
    store64(t.mailbox + 8 * STATE, state)
    command(world, t.nic, next_slot(f), MODIFY_QP, (t.number, mask | STATE_MASK, 0, t.mailbox))


@jit
def ring_send(world, t):
    """The send doorbell of a target."""
    push(world, control(world, 0).now + nic(world, t.nic).doorbell_ns, units.DOORBELL, t.qp, 0)


@jit
def revive(world, f, i):
    """Bring a target back to its state through RESET, with fresh queues."""
    t = target(f, i)
    set_state(world, f, t, RESET, 0)
    store64(t.record + rings.DB_SEND, 0)
    store64(t.record + rings.DB_RECV, 0)
    if t.state != RESET:
        set_state(world, f, t, INIT, t.mask)
        store64(t.record + rings.DB_RECV, t.recv_slots)
    if t.state != RESET and t.state != INIT and t.state != ERR:
        set_state(world, f, t, RTR, 0)
    if t.state >= RTS and t.state != ERR:
        set_state(world, f, t, RTS, 0)
    store64(t.record + rings.DB_SEND, t.posts)
    if t.state > RTS and t.state != ERR:
        ring_send(world, t)
        go_on(world, f, control(world, 0).now + STARTED_NS)
    if t.state > RTS:
        set_state(world, f, t, t.state, 0)
    ring_send(world, t)


@jit
def repost(world, f):
    """Receives for all; sends where they are done; who died comes back, and now and then one that did not."""
    for i in range(fuzz(f, 0).targets):
        t = target(f, i)
        q = qp(world, t.qp)
        if q.state != t.state or q.resp_error != 0 or one_in(f, 64):
            revive(world, f, i)
            continue
        if t.state == ERR and not one_in(f, 16):
            continue
        store64(t.record + rings.DB_RECV, q.rq_next + t.recv_slots)
        posted = load64(t.record + rings.DB_SEND) - q.sq_una
        if posted < 0 or posted > t.send_slots:
            revive(world, f, i)
        if t.posts > 0 and q.sq_una == load64(t.record + rings.DB_SEND):
            store64(t.record + rings.DB_SEND, q.sq_una + t.posts)
            ring_send(world, t)
    for i in range(fuzz(f, 0).srqs):
        s = shared(f, i)
        if srq(world, s.row).error:
            renew_srq(world, f, s)
        store64(s.record + rings.DB_SRQ_PRODUCER, srq(world, s.row).next + s.slots)


@jit
def renew_srq(world, f, s):
    """DESTROY_SRQ and CREATE_SRQ of one that is in error."""
    old = srq(world, s.row)
    command(world, s.nic, next_slot(f), DESTROY_SRQ, (s.number, 0, 0, 0))
    slot = next_slot(f)
    n = nic(world, s.nic)
    at = n.command_ring + slot * abi.COMMAND_BYTES + abi.COMMAND_PARAMS
    store64(at + 24, s.slots)
    store64(at + 32, s.stride)
    store64(at + 40, s.record)
    store64(at + 48, old.type)
    store64(at + 56, old.xrcd)
    store64(at + 64, old.cq - n.cq_base)
    store64(s.record + rings.DB_SRQ_PRODUCER, 0)
    command(world, s.nic, slot, CREATE_SRQ, (s.number, old.pd, s.ring, 0))


@jit
def read_cqs(world, f):
    """Count the completions by status and consume them; an overrun CQ is made anew."""
    for i in range(fuzz(f, 0).queues):
        u = queue(f, i)
        if u.is_eq:
            continue
        c = cq(world, u.row)
        for head in range(load64(u.record), c.produced):
            status = load32(u.ring + (head & (u.slots - 1)) * rings.CQE_BYTES + rings.CQE_STATUS)
            counter(f, STATUSES_AT + (status & 31)).count += 1
        store64(u.record, c.produced)
        if c.overrun:
            command(world, u.nic, next_slot(f), DESTROY_CQ, (u.number, 0, 0, 0))
            store64(u.record, 0)
            create_cq(world, f, u)


@jit
def create_cq(world, f, u):
    """CREATE_CQ of a queue row."""
    slot = next_slot(f)
    n = nic(world, u.nic)
    at = n.command_ring + slot * abi.COMMAND_BYTES + abi.COMMAND_PARAMS
    store64(at + 24, u.record)
    store64(at + 32, u.eqn)
    store64(at + 40, 0)
    command(world, u.nic, slot, CREATE_CQ, (u.number, u.ring, u.slots, 0))


@jit
def read_eqs(world, f):
    """Consume the events; page faults are answered. Then the queue is armed."""
    for i in range(fuzz(f, 0).queues):
        u = queue(f, i)
        if not u.is_eq:
            continue
        e = eq(world, u.row)
        for head in range(load64(u.record), e.produced):
            at = u.ring + (head & (u.slots - 1)) * rings.EQE_BYTES
            if u.number == ASYNC_EQN:
                counter(f, ASYNCS_AT + (load32(at + rings.EQE_SUBTYPE) & 31)).count += 1
            elif u.number == PAGE_FAULT_EQN:
                answer_fault(world, f, u.nic, load64(at + rings.EQE_DATA + 8))
        store64(u.record, e.produced)
        push(world, control(world, 0).now, units.EQ_ARM, u.row, 0)


@jit
def answer_fault(world, f, nic_number, token):
    """Bring the page in and resume; or resume without it, or with an error."""
    m = fault(world, token).mkey
    for i in range(fuzz(f, 0).regions):
        r = region(f, i)
        if r.nic == nic_number and nic(world, nic_number).mkey_base + r.index == m and r.cold and not one_in(f, 4):
            bring_in(world, f, r, (fault(world, token).va >> PAGE_SHIFT) - (r.va >> PAGE_SHIFT))
    command(world, nic_number, next_slot(f), RESUME, (token, 1 if one_in(f, 4) else 0, 0, 0))


@jit
def bring_in(world, f, r, page):
    """UPDATE_MTT of one page, at the present stamp."""
    if page < 0 or page >= r.pages:
        return
    stamp = control(world, 0).stamp
    entry = 3 | load64(r.frames + 8 * page) << FRAME_SHIFT | stamp << STAMP_SHIFT
    store64(r.mailbox + 8 * page, entry)
    command(world, r.nic, next_slot(f), UPDATE_MTT, (r.index, page, 1, r.mailbox + 8 * page))


@jit
def all_answered(world, nic_number):
    """The device has answered every command."""
    n = nic(world, nic_number)
    e = eq(world, n.eq_base + COMMAND_EQN)
    return e.produced + e.lost >= n.commands


@jit
def settle_commands(world, f, nic_number):
    """Run until the device has answered every command, and hardly longer."""
    for _ in range(10_000):
        if all_answered(world, nic_number) or fuzz(f, 0).stuck != 0:
            return
        go_on(world, f, control(world, 0).now + STEP_NS)
    give_up(f, COMMAND_LOST, nic_number)


@jit
def take_away(world, f):
    """Invalidate a page of a cold region as a driver does: ZAP_MTT, wait for its completion; from then on every DMA
    through an older translation is a violation. Not while an update of the page may be on its way."""
    i = draw(f, fuzz(f, 0).regions)
    while region(f, i).cold == 0:
        i = (i + 1) % fuzz(f, 0).regions
    r = region(f, i)
    if not all_answered(world, r.nic):
        return
    page = draw(f, r.pages)
    command(world, r.nic, next_slot(f), ZAP_MTT, (r.index, page, 1, 0))
    settle_commands(world, f, r.nic)
    c = control(world, 0)
    c.stamp += 1
    frame_stamp(world, load64(r.frames + 8 * page)).invalidated = c.stamp


@jit
def attend(world, f):
    """Everything a host does between two inputs."""
    read_cqs(world, f)
    read_eqs(world, f)
    repost(world, f)


@jit
def revive_all(world, f):
    """Every target to its state."""
    for i in range(fuzz(f, 0).targets):
        revive(world, f, i)
        settle_commands(world, f, target(f, i).nic)
        if i & 15 == 15:
            read_eqs(world, f)
    read_cqs(world, f)
    read_eqs(world, f)


@jit
def rest(world, f):
    """All targets to RESET; then nothing may be left to do."""
    fuzz(f, 0).events = 0
    for i in range(fuzz(f, 0).targets):
        t = target(f, i)
        set_state(world, f, t, RESET, 0)
        settle_commands(world, f, t.nic)
        if i & 15 == 15:
            read_eqs(world, f)
    read_cqs(world, f)
    read_eqs(world, f)
    fuzz(f, 0).events = 0
    go_on(world, f, control(world, 0).now + LONGEST_NS)
    read_eqs(world, f)
    c = control(world, 0)
    go_on(world, f, c.now + LONGEST_NS)
    if c.pending != c.stale:
        give_up(f, NOT_IDLE, c.pending)
