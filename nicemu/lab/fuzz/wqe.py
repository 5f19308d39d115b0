"""Hostile work requests: WQEs that are right but for some of their fields, counters that cannot be, rings that change
while the NIC works on them."""

from pathlib import Path

from nicemu._jit import entry, jit, load64, store32, store64
from nicemu.abi import rings
from nicemu.abi.verbs import QpState, WrOpcode
from nicemu.lab.fuzz.dice import draw, one_in, pick, word32, word64
from nicemu.lab.fuzz.healthy import ask_healthy, see_healthy
from nicemu.lab.fuzz.host import attend, go_on, ring_send, set_state, take_away
from nicemu.lab.fuzz.tables import fuzz, region, shared, target
from nicemu.lab.fuzz.wire import HEALTHY, TAKE_AWAY, near, some_key, some_region
from nicemu.nic.qp_type import UD, is_reliable
from nicemu.tables.rows import control, qp

ATOMICS = (int(WrOpcode.ATOMIC_CMP_AND_SWP), int(WrOpcode.ATOMIC_FETCH_AND_ADD), int(WrOpcode.ATOMIC_WRITE))
SEND, BIND_MW, FLUSH = int(WrOpcode.SEND), int(WrOpcode.BIND_MW), int(WrOpcode.FLUSH)
OPCODES = (0, 0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8, 9, 14, 15)
UNRELIABLE = (0, 0, 1, 2, 2, 3, 7, 8)
COUNTS = (0, 1, 1, 1, 1, 2, 3, 8, 9, 28, 60, 1 << 20, (1 << 32) - 1)
SIZES = (0, 1, 7, 8, 8, 64, 255, 256, 257, 1024, 1025, 3000, 4096, 8192, 32768, 1 << 31, (1 << 32) - 1)
COUNTERS = (0, -1, 17, 1000, 5_000_000, 1 << 31, 1 << 62, (1 << 63) - 1, -(1 << 63))
WINDOWS = (20, 21, 22)
WORD, ATTEND = 0xFFFFFFFF, 8
RTS, SQD, ERR = int(QpState.RTS), int(QpState.SQD), int(QpState.ERR)


@jit
def put_sge(f, at, nic_number, length):
    """An element at ``at``; ``length`` < 0: any."""
    r = region(f, some_region(f, nic_number))
    size = length
    if length < 0:
        size = pick(f, SIZES) if one_in(f, 8) else draw(f, 4097)
    va = r.va + draw(f, max(r.length - size, 1)) if not one_in(f, 16) else near(f, r.va, r.length)
    store64(at + rings.SGE_ADDR, va)
    store32(at + rings.SGE_LENGTH, size & WORD)
    store32(at + rings.SGE_LKEY, some_key(f, r) & WORD)


@jit
def put_sges(f, at, room, nic_number, length):
    """A list of elements that fits ``room`` bytes; its count may lie."""
    count = 1
    if length < 0:
        count = pick(f, COUNTS) if one_in(f, 10) else 1 + draw(f, 3)
    for i in range(min(count, room // rings.SGE_BYTES)):
        put_sge(f, at + i * rings.SGE_BYTES, nic_number, length)
    return count


@jit
def put_remote(f, at, nic_number):
    """Where an RDMA request goes: the peer's memory."""
    r = region(f, some_region(f, 3 - nic_number))
    store64(at + rings.SEND_REMOTE_ADDR, near(f, r.va, r.length) & -8 if one_in(f, 3) else r.va)
    store32(at + rings.SEND_RKEY, some_key(f, r) & WORD)


@jit
def put_window(f, at, nic_number):
    """BIND_MW: new key, window, region, range, rights."""
    index = pick(f, WINDOWS)
    r = region(f, some_region(f, nic_number))
    store32(at + rings.SEND_RKEY, (index << 8) + draw(f, 4) if not one_in(f, 8) else word32(f))
    store64(at + rings.SEND_COMPARE_ADD, (index << 8) + 0x5A if one_in(f, 2) else (index << 8) + draw(f, 4))
    store32(at + rings.SEND_REMOTE_QPN, some_key(f, r) & WORD)
    store64(at + rings.SEND_REMOTE_ADDR, r.va if one_in(f, 2) else near(f, r.va, r.length))
    store64(at + rings.SEND_SWAP, draw(f, 8192) if not one_in(f, 4) else word64(f))
    store32(at + rings.SEND_IMM, draw(f, 128))


@jit
def put_rest(f, at, t, opcode):
    """Fields that only some operations have."""
    store64(at + rings.SEND_COMPARE_ADD, word64(f) if opcode != FLUSH else draw(f, 4) + (draw(f, 3) << 8))
    store64(at + rings.SEND_SWAP, word64(f) if opcode != FLUSH else draw(f, 9000))
    store32(at + rings.SEND_IMM, (pick(f, WINDOWS) << 8) + draw(f, 4) if one_in(f, 2) else word32(f))
    store32(at + rings.SEND_REMOTE_QKEY, pick(f, (0x11, 0x11, 0x80000000, 0x12)))
    store32(at + rings.SEND_REMOTE_QPN, draw(f, 4) if one_in(f, 2) else draw(f, 64))
    put_remote(f, at, t.nic)
    if opcode == BIND_MW:
        put_window(f, at, t.nic)


@jit
def choose_opcode(f, q):
    """Usually one that the transport has."""
    if one_in(f, 32):
        return word32(f) if one_in(f, 2) else draw(f, 20)
    if q.type == UD:
        return SEND + draw(f, 2)
    return pick(f, OPCODES) if is_reliable(q) else pick(f, UNRELIABLE)


@jit
def put_send(f, at, t, q):
    """A send WQE."""
    opcode = choose_opcode(f, q)
    length = -1
    for atomic in ATOMICS:
        if opcode == atomic and not one_in(f, 8):
            length = 8
    if q.type == UD and not one_in(f, 4):
        length = draw(f, 2048)
    flags = (2 if not one_in(f, 4) else 0) | (draw(f, 16) if one_in(f, 4) else 0)
    if one_in(f, 64):
        flags = word32(f)
    room = t.send_stride - rings.SEND_HEADER_BYTES
    store64(at + rings.SEND_WR_ID, fuzz(f, 0).number)
    store32(at + rings.SEND_OPCODE, opcode)
    store32(at + rings.SEND_FLAGS, flags)
    store32(at + rings.SEND_INLINE_LENGTH, draw(f, room + 2) if not one_in(f, 8) else word32(f))
    put_rest(f, at, t, opcode)
    if q.type == UD:
        store32(at + rings.SEND_RKEY, 1 + draw(f, 5) if not one_in(f, 16) else word32(f))
        store32(at + rings.SEND_REMOTE_QPN, draw(f, 40) if not one_in(f, 4) else 0xFFFFFF)
    count = put_sges(f, at + rings.SEND_HEADER_BYTES, room, t.nic, length)
    store32(at + rings.SEND_NUM_SGE, count & WORD)


@jit
def put_receive(f, at, stride, nic_number):
    """A receive WQE."""
    store64(at + rings.RECV_WR_ID, fuzz(f, 0).number)
    room = stride - rings.RECV_HEADER_BYTES
    count = put_sges(f, at + rings.RECV_HEADER_BYTES, room, nic_number, 3000 if one_in(f, 2) else -1)
    store32(at + rings.RECV_NUM_SGE, count & WORD)


@jit
def post(world, f, t):
    """A WQE at the producer counter, then the doorbell. A full ring is sometimes overrun."""
    q = qp(world, t.qp)
    tail = load64(t.record + rings.DB_SEND)
    if t.send_slots == 0 or (not 0 <= tail - q.sq_una < t.send_slots and not one_in(f, 64)):
        return
    put_send(f, t.send_ring + (tail & (t.send_slots - 1)) * t.send_stride, t, q)
    if -(1 << 62) < tail < 1 << 62:
        store64(t.record + rings.DB_SEND, tail + 1)
    ring_send(world, t)


@jit
def change_ring(f, t):
    """A program that changes a slot which the NIC may be working on."""
    what = draw(f, 8)
    if t.send_slots and what < 3:
        at = t.send_ring + draw(f, t.send_slots) * t.send_stride
        if what == 0:
            store32(at + 4 * draw(f, t.send_stride // 4), word32(f))
        else:
            put_sge(f, at + rings.SEND_HEADER_BYTES, t.nic, -1)
    elif t.recv_slots and what < 6:
        put_receive(f, t.recv_ring + draw(f, t.recv_slots) * t.recv_stride, t.recv_stride, t.nic)
    else:
        s = shared(f, draw(f, fuzz(f, 0).srqs))
        put_receive(f, s.ring + draw(f, s.slots) * s.stride, s.stride, s.nic)


@jit
def change_counter(f, t):
    """A producer counter that cannot be."""
    what = draw(f, 8)
    if what == 0:
        store64(shared(f, draw(f, fuzz(f, 0).srqs)).record + rings.DB_SRQ_PRODUCER, pick(f, COUNTERS))
    else:
        store64(t.record + (rings.DB_SEND if what < 5 else rings.DB_RECV), pick(f, COUNTERS))


@jit
def one_wqe(world, f):
    """Post a WQE, spoil what lies around it, let time go on."""
    row = fuzz(f, 0)
    row.number += 1
    row.events = 0
    t = target(f, draw(f, row.targets))
    post(world, f, t)
    other = target(f, draw(f, row.targets))
    if one_in(f, 3):
        change_ring(f, other)
    if one_in(f, 200):
        change_counter(f, other)
        ring_send(world, other)
    if one_in(f, 100) and other.state == RTS:
        set_state(world, f, other, pick(f, (SQD, RTS, ERR, SQD)), 0)
    c = control(world, 0)
    go_on(world, f, c.now + draw(f, row.pace))


@entry("int64(int64, int64, int64)", Path(__file__).parent)
def wqe(world, f, count):
    """``count`` hostile WQEs; the answer is how many were posted before the kernel gave up."""
    row = fuzz(f, 0)
    for made in range(count):
        if row.number % HEALTHY == 0:
            see_healthy(world, f)
            ask_healthy(world, f)
        if row.number % ATTEND == 0:
            row.events = 0
            attend(world, f)
        one_wqe(world, f)
        if one_in(f, TAKE_AWAY):
            take_away(world, f)
        if row.stuck:
            return made + 1
    return count
