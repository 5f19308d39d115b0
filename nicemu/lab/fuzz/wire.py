"""Hostile packets: each is near enough to what its QP expects that it gets past the first check, and wrong somewhere.

A packet starts as a plausible request or response for the state its QP is in; then, once in a few times each, fields
become boundary values or anything at all.
"""

from pathlib import Path

from nicemu._jit import entry, fill_bytes, jit, store64
from nicemu.lab.fuzz.dice import draw, one_in, pick, word32, word64
from nicemu.lab.fuzz.healthy import ask_healthy, see_healthy
from nicemu.lab.fuzz.host import attend, go_on, take_away
from nicemu.lab.fuzz.tables import fuzz, region, shared, target
from nicemu.nic.datagram import MULTICAST_QPN
from nicemu.nic.psn import psn_add, psn_ahead, psn_diff
from nicemu.nic.qp_type import FLUSH as WR_FLUSH
from nicemu.nic.qp_type import RDMA_READ, UD, XRC_INI, is_non_posted, is_reliable, returns_data, transport_of
from nicemu.nic.send_queue import entry_of
from nicemu.tables import units
from nicemu.tables.packets import new_packet, payload_address
from nicemu.tables.records import RESOURCES_PER_QP
from nicemu.tables.rows import control, packet, qp, resource
from nicemu.tables.wheel import push
from nicemu.wire import opcode as bth

STARTERS = (
    bth.SEND + bth.FIRST, bth.SEND + bth.ONLY, bth.SEND + bth.ONLY_IMM, bth.WRITE + bth.FIRST, bth.WRITE + bth.ONLY,
    bth.WRITE + bth.ONLY_IMM, bth.READ_REQUEST, bth.COMPARE_SWAP, bth.FETCH_ADD, bth.FLUSH, bth.ATOMIC_WRITE,
    bth.ONLY_INV,
)  # fmt: skip
UNRELIABLE_STARTERS = 6
"""So many of them UC has as well."""
LASTS = (bth.LAST, bth.LAST, bth.LAST_IMM)
LENGTHS = (0, 1, 7, 8, 9, 255, 256, 257, 4095, 4096, 4097, 8192, 1 << 31, (1 << 31) + 1, (1 << 32) - 1, -1, -4096)
PAYLOADS = (0, 1, 7, 8, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097, 8192, 1 << 31, 1 << 40, -1, -(1 << 31))
SYNDROMES = (
    0x1F, 0x1F, 0, 1, 30, 0x20, 0x21, 0x2C, 0x3F, 0x40, 0x5F, 0x60, 0x60, 0x61, 0x62, 0x63, 0x64, 0x7F, 0x80, 0xFF,
    1 << 20, -1,
)  # fmt: skip
EDGES = (0, -8, -1, (1 << 63) - 8, (1 << 63) - 1, -(1 << 63), 1 << 32, 1 << 62)
QPNS = (0, 1, -1, MULTICAST_QPN, 1 << 24, 1 << 62, 255, 256, 257)
SMALL_STEPS = (-1, 1, 2, -2, 3, 127, 128, -128)
XRC_SRQ = 2
QKEY, PKEY, GROUP_HIGH, GROUP_LOW = 0x11, 0xFFFF, -0x00FFFFFFFFFFFFFF, 7
ATTEND, HEALTHY = 32, 4096
TAKE_AWAY = 32
"""A page goes once in so many inputs."""
MOST_BURST = 600


@jit
def near(f, base, length):
    """An address at an edge of a range, inside it, or anywhere."""
    where = draw(f, 8)
    if where < 3:
        return base
    if where < 5:
        return base + draw(f, max(length, 1))
    if where == 5:
        return base + length - draw(f, 16) if base < EDGES[3] - length else EDGES[3]
    if where == 6:
        return base - 1 - draw(f, 16) if base > EDGES[5] + 64 else EDGES[5]
    return pick(f, EDGES) if one_in(f, 2) else word64(f)


@jit
def some_region(f, nic_number):
    """Index of a region of a NIC, usable ones more often."""
    count = fuzz(f, 0).regions
    i = 0
    for _ in range(6):
        i = draw(f, count)
        if region(f, i).nic == nic_number and (region(f, i).usable or one_in(f, 6)):
            return i
    return i


@jit
def some_key(f, r):
    """The key of a region, a stale variant of it, or any number."""
    if not one_in(f, 24):
        return r.key
    return r.key + 1 if one_in(f, 2) else (r.key ^ (1 << draw(f, 32)) if one_in(f, 2) else word32(f))


@jit
def aim(f, row, length):
    """Key, address and length of an RDMA request: usually inside a region."""
    r = region(f, some_region(f, 1))
    row.rkey = some_key(f, r)
    row.length = length
    if one_in(f, 4):
        row.va = near(f, r.va, r.length)
    else:
        row.va = r.va + draw(f, max(r.length - length, 1))
    if not one_in(f, 8):
        row.va &= -8
    if one_in(f, 16):
        row.length = pick(f, LENGTHS)


@jit
def continue_message(f, q, row):
    """MIDDLE or LAST of the message in progress."""
    is_send = bth.is_send(q.message_opcode - 1)
    group = bth.SEND if is_send else bth.WRITE
    rest = draw(f, 3 * q.mtu) if is_send else q.message_length - q.message_offset
    if rest > q.mtu:
        row.opcode = group + bth.MIDDLE
        row.payload = q.mtu
        return
    row.opcode = bth.LAST_INV if is_send and one_in(f, 5) else group + pick(f, LASTS)
    row.payload = max(rest, 1)


@jit
def start_message(f, q, row):
    """A request that starts a message."""
    row.opcode = STARTERS[draw(f, 12 if is_reliable(q) else UNRELIABLE_STARTERS)]
    if q.type == UD:
        row.opcode = bth.SEND + bth.ONLY + draw(f, 2)
    length = 8
    if not bth.ends(row.opcode):
        row.payload = q.mtu
        length = q.mtu + 1 + draw(f, 2 * q.mtu)
    elif bth.is_send(row.opcode) or bth.is_write(row.opcode):
        row.payload = draw(f, min(q.mtu, 2048 if one_in(f, 2) else 600) + 1)
        length = row.payload
    elif row.opcode == bth.READ_REQUEST or row.opcode == bth.FLUSH:
        length = draw(f, 3 * q.mtu)
    elif row.opcode == bth.ATOMIC_WRITE:
        row.payload = 8
    aim(f, row, length)
    if row.opcode == bth.FLUSH:
        row.compare_add = draw(f, 4)
        row.swap = draw(f, 3)


@jit
def request(world, f, q, row):
    """A request at or near the expected PSN."""
    row.compare_add = word64(f)
    row.swap = word64(f)
    row.psn = q.epsn
    if q.message_opcode != 0 and not one_in(f, 8):
        continue_message(f, q, row)
    else:
        start_message(f, q, row)
    if one_in(f, 8):
        row.psn = psn_add(q.epsn, pick(f, SMALL_STEPS))
    if is_reliable(q) and one_in(f, 8):
        again(world, f, q, row)


@jit
def again(world, f, q, row):
    """A duplicate, near or exact, of a request that the responder remembers."""
    r = resource(world, q.resource_base + draw(f, RESOURCES_PER_QP))
    if r.kind == 0:
        return
    row.opcode = r.opcode
    row.psn = psn_add(r.first_psn, 0 if one_in(f, 2) else draw(f, 4))
    row.payload = 8 if r.opcode == bth.ATOMIC_WRITE else 0
    row.rkey = r.key
    row.va = r.va
    row.length = r.length


@jit
def answer_oldest(world, f, q, row):
    """What the oldest outstanding request of the QP waits for."""
    e = entry_of(world, q, q.sq_una)
    row.psn = q.una_psn
    row.syndrome = bth.ACK_UNLIMITED
    if is_non_posted(e.opcode):
        row.opcode = bth.ATOMIC_ACK
        if e.opcode == RDMA_READ:
            row.opcode = bth.READ_RESP_FIRST + draw(f, 4)
            row.payload = min(max(e.length - psn_diff(row.psn, e.first_psn) * q.mtu, 0), q.mtu)
        elif not returns_data(e.opcode) or e.opcode == WR_FLUSH:
            row.opcode = bth.READ_RESP_ONLY
        return
    row.opcode = bth.ACKNOWLEDGE
    row.psn = psn_add(q.una_psn, draw(f, 1 + min(psn_ahead(q.sent_psn, q.una_psn), 8)))


@jit
def response(world, f, q, row):
    """A response for something outstanding: right in half of the cases."""
    if q.sq_slots > 0 and q.sq_una < q.sq_fetched and not one_in(f, 4):
        answer_oldest(world, f, q, row)
    else:
        row.opcode = bth.READ_RESP_FIRST + draw(f, 6)
        row.psn = psn_add(q.una_psn, pick(f, SMALL_STEPS))
        row.payload = draw(f, q.mtu + 1)
    if one_in(f, 4):
        row.opcode = bth.ACKNOWLEDGE
        row.syndrome = pick(f, SYNDROMES)
    row.msn = draw(f, 64)


@jit
def spoil(f, row):
    """One field in a few becomes something else."""
    what = draw(f, 12)
    if what == 0:
        row.opcode = draw(f, 32)
    elif what == 1:
        row.opcode = pick(f, QPNS)
    elif what == 2:
        row.payload = pick(f, PAYLOADS)
    elif what == 3:
        row.length = pick(f, LENGTHS)
    elif what == 4:
        row.psn = word32(f) & 0xFFFFFF
    elif what == 5:
        row.syndrome = word32(f) - (1 << 31)
    elif what == 6:
        row.rkey = word64(f)
    elif what == 7:
        row.va = near(f, row.va, 4096) if abs(row.va) < 1 << 60 else word64(f)
    elif what == 8:
        row.transport = draw(f, 8)
    elif what == 9:
        row.source_qpn = pick(f, QPNS)
    elif what == 10:
        row.source_nic = 1 + draw(f, 3)
    else:
        row.dest_qpn = pick(f, QPNS) if one_in(f, 2) else draw(f, 256)


@jit
def keys(f, row):
    """Partition, Q_Key, SRQ, immediate data or key to invalidate, flags, addresses."""
    row.pkey = word32(f) & 0xFFFF if one_in(f, 64) else (0x7FFF if one_in(f, 16) else PKEY)
    row.qkey = word32(f) if one_in(f, 16) else QKEY
    srqs = fuzz(f, 0).srqs
    row.srqn = XRC_SRQ
    if one_in(f, 12):
        row.srqn = shared(f, draw(f, srqs)).number if one_in(f, 2) else pick(f, QPNS)
    row.imm = some_key(f, region(f, draw(f, fuzz(f, 0).regions)))
    row.ack_request = draw(f, 2)
    row.solicited = draw(f, 2)
    row.ecn = draw(f, 2)
    row.result = word64(f)
    row.dgid_high = GROUP_HIGH
    row.dgid_low = GROUP_LOW if not one_in(f, 4) else word64(f)
    row.sgid_high = word64(f)
    row.sgid_low = word64(f)
    row.flow_label = word64(f)
    row.traffic_class = word64(f)
    row.hop_limit = word64(f)


@jit
def choose(f):
    """A target; those that can take a packet more often. Now and then a flood goes to one of them."""
    row = fuzz(f, 0)
    if row.burst > 0:
        row.burst -= 1
        return row.last_target
    if one_in(f, 2048):
        row.burst = draw(f, MOST_BURST)
    return draw(f, row.targets if one_in(f, 8) else row.live)


@jit
def make(world, f):
    """One hostile packet: its row."""
    i = choose(f)
    t = target(f, i)
    q = qp(world, t.qp)
    p = new_packet(world, 2)
    row = packet(world, p)
    row.dest_nic = t.nic
    row.dest_qpn = t.number
    row.source_nic = q.dest_nic
    row.source_qpn = q.dest_qpn
    row.transport = transport_of(q)
    row.va = 0
    row.rkey = 0
    row.msn = 0
    row.qp = 0
    keys(f, row)
    asks = q.sq_una < q.sq_fetched and is_reliable(q)
    if q.type == XRC_INI or (asks and one_in(f, 2)) or one_in(f, 24):
        response(world, f, q, row)
    else:
        request(world, f, q, row)
    if one_in(f, 6):
        spoil(f, row)
        if one_in(f, 3):
            spoil(f, row)
    if q.type == UD and one_in(f, 16):
        row.multicast = 1
        row.dest_qpn = MULTICAST_QPN
    fuzz(f, 0).last_target = i
    fuzz(f, 0).last_state = q.state
    fuzz(f, 0).multicast = row.multicast
    return p


@jit
def fill(world, f, p):
    """Payload bytes."""
    row = packet(world, p)
    at = payload_address(world, p)
    size = min(max(row.payload, 0), 4096)
    fill_bytes(at, draw(f, 256), size)
    if size >= 8:
        store64(at, word64(f))


@jit
def one_packet(world, f):
    """Make a packet, let it arrive, let time go on."""
    row = fuzz(f, 0)
    p = make(world, f)
    fill(world, f, p)
    row.last_packet = p
    row.number += 1
    row.events = 0
    c = control(world, 0)
    push(world, c.now + (draw(f, row.pace) if row.burst == 0 else 0), units.ARRIVE, p, 0)
    if row.burst == 0:
        go_on(world, f, c.now + row.pace)


@entry("int64(int64, int64, int64)", Path(__file__).parent)
def wire(world, f, count):
    """``count`` hostile packets; the answer is how many were made before the kernel gave up."""
    row = fuzz(f, 0)
    for made in range(count):
        if row.number % HEALTHY == 0:
            see_healthy(world, f)
            ask_healthy(world, f)
        if row.number % ATTEND == 0:
            row.events = 0
            attend(world, f)
        one_packet(world, f)
        if one_in(f, TAKE_AWAY):
            take_away(world, f)
        if row.stuck:
            return made + 1
    return count
