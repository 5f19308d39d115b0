"""An honest pair of RC QPs on the NICs under fire: WRITE, READ and SEND with known bytes, in bounded time."""

from nicemu._jit import fill_bytes, jit, load32, load64, store64
from nicemu.abi import rings
from nicemu.lab.fuzz.dice import word64
from nicemu.lab.fuzz.host import give_up
from nicemu.lab.fuzz.tables import Stuck, healthy
from nicemu.tables import units
from nicemu.tables.rows import control, cq, nic, qp
from nicemu.tables.wheel import push

LATE, FAILED, BYTES = int(Stuck.HEALTHY_LATE), int(Stuck.HEALTHY_FAILED), int(Stuck.HEALTHY_BYTES)
PAGE = 4096
REQUESTS = 4
"""Of a round: WRITE, READ, SEND, WRITE of nothing."""


@jit
def paint(f, at):
    """New contents of a page."""
    word = word64(f)
    fill_bytes(at, word & 0xFF, PAGE)
    store64(at, word)
    store64(at + PAGE - 8, word)


@jit
def ask_healthy(world, f):
    """Post a round; the WQEs in the ring stay the same."""
    h = healthy(f, 0)
    paint(f, h.source)
    paint(f, h.peer_source)
    store64(h.record + rings.DB_SEND, load64(h.record + rings.DB_SEND) + REQUESTS)
    store64(h.peer_record + rings.DB_RECV, load64(h.peer_record + rings.DB_RECV) + 1)
    h.rounds += 1
    push(world, control(world, 0).now + nic(world, qp(world, h.qp).nic).doorbell_ns, units.DOORBELL, h.qp, 0)


@jit
def completions(world, f, row, count):
    """A CQ holds exactly ``count`` good completions; consume them."""
    c = cq(world, row)
    head = load64(c.doorbell_record)
    for at in range(head, c.produced):
        status = load32(c.ring + (at & (c.slots - 1)) * rings.CQE_BYTES + rings.CQE_STATUS)
        if status != 0:
            give_up(f, FAILED, status)
    if c.produced - head != count:
        give_up(f, LATE, c.produced - head)
    store64(c.doorbell_record, c.produced)


@jit
def same(a, b):
    """Two pages hold the same bytes."""
    for at in range(0, PAGE, 8):
        if load64(a + at) != load64(b + at):
            return False
    return True


@jit
def see_healthy(world, f):
    """The round posted last is complete and its bytes are right."""
    h = healthy(f, 0)
    if h.rounds == h.seen:
        return
    completions(world, f, h.cq, REQUESTS)
    completions(world, f, h.peer_cq, 1)
    good = same(h.source, h.peer_written) and same(h.source, h.peer_received) and same(h.peer_source, h.drop)
    if not good:
        give_up(f, BYTES, h.rounds)
    h.seen = h.rounds
