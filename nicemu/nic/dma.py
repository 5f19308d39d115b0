"""DMA in two instants: translate (record frame, generation, stamp), and move the bytes at least the PCIe latency later.

The second instant falls into an event that exists anyway: a packet's departure, or its commit at the receiver. An
mkey remembers when its last DMA will have moved, which is what an invalidation drains.
"""

from nicemu._jit import call, cold, copy_bytes, fill_bytes, jit, load32, load64, store64
from nicemu.abi.command import MTT_FRAME_BITS, MTT_FRAME_SHIFT, MTT_WRITE, MkeyFlag
from nicemu.abi.rings import SGE_ADDR, SGE_BYTES, SGE_LENGTH, SGE_LKEY
from nicemu.abi.verbs import PAGE_SHIFT, Access
from nicemu.memory import sanitizer
from nicemu.memory.copy import read_frame, write_frame
from nicemu.nic.defects import LATE_ELEMENTS, PAGE_OFFSET, has
from nicemu.nic.iotlb import translate
from nicemu.nic.lent import before_write, keep, lend
from nicemu.nic.mkey import IMPLICIT, check_mkey, child_of
from nicemu.tables import units
from nicemu.tables.packets import payload_address, payload_of
from nicemu.tables.records import SEGMENTS_NEAR, SEGMENTS_PER_PACKET
from nicemu.tables.rows import control, frame, mkey, nic, packet, qp, segment, vector
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push
from nicemu.wire import opcode as bth

OK, FAULT, BAD_KEY, TOO_SHORT, TOO_MANY = 0, 1, 2, 3, 4
"""Verdicts of building a gather or scatter list."""

FRAME_MASK = (1 << MTT_FRAME_BITS) - 1
SEGMENTS_FAR = SEGMENTS_PER_PACKET - SEGMENTS_NEAR
PAGE_BYTES = 1 << PAGE_SHIFT
WITHIN_PAGE = PAGE_BYTES - 1
LOCAL_WRITE = int(Access.LOCAL_WRITE)
DMA = int(Ev.DMA)
ON_DEMAND = int(MkeyFlag.ODP)
UNPAGED = int(MkeyFlag.NULL | MkeyFlag.DEVICE_MEMORY)


@jit
def segment_of(world, p, i):
    """Segment ``i`` of packet ``p``. Few have more than two: the first ones of all packets lie side by side, and the
    others of all behind them."""
    if i < SEGMENTS_NEAR:
        return segment(world, p * SEGMENTS_NEAR + i)
    return segment(world, control(world, 0).packet_end * SEGMENTS_NEAR + p * SEGMENTS_FAR + i - SEGMENTS_NEAR)


@jit
def add_segment(world, p, length, mkey_row, via):
    """A segment of packet ``p`` that its caller fills in."""
    row = packet(world, p)
    s = segment_of(world, p, row.segments)
    row.segments += 1
    s.length = length
    s.mkey = mkey_row
    s.via = via
    s.time = control(world, 0).now
    return s


@cold
def add_unpaged(world, p, length, mkey_row, via, memory):
    """A segment of device memory at ``memory``, or of nothing."""
    s = add_segment(world, p, length, mkey_row, via)
    s.entry = memory
    s.frame = 0
    s.generation = 0
    s.offset = 0
    s.page = 0


@jit
def translate_page(world, nic_number, mkey_row, va, write):
    """(MTT entry, MTT page, byte within it, row of the mkey whose page it is); entry 0: absent, or not for writing."""
    row = mkey_row
    m = mkey(world, row)
    if m.flags & IMPLICIT != 0:
        row = child_of(world, nic_number, m, va)
        if row == 0:
            return 0, 0, 0, 0
        m = mkey(world, row)
    place = va - m.base + m.first
    page = place >> m.page_shift
    entry = translate(world, nic_number, row, page)
    if write and entry & MTT_WRITE == 0:
        entry = 0
    return entry, page, place - (page << m.page_shift), row


@jit
def translate_range(world, p, mkey_row, va, length, write):
    """Append the segments of ``va .. va+length`` to packet ``p``: OK, or FAULT with fault_mkey and fault_address.

    The range was checked against the mkey before; only presence and the write bit are decided here. A window is
    translated through its region, and faults are the region's.
    """
    row = packet(world, p)
    via = mkey_row
    m = mkey(world, mkey_row)
    if m.parent != 0:
        va = m.parent_va + (va - m.base)
        mkey_row = m.parent
        m = mkey(world, mkey_row)
    if row.segments >= SEGMENTS_PER_PACKET:
        return TOO_MANY
    if m.flags & UNPAGED != 0:
        add_unpaged(world, p, length, mkey_row, via, 0 if m.memory == 0 else m.memory + (va - m.base))
        return OK
    while True:
        entry, page, within, paged = translate_page(world, row.kind, mkey_row, va, write)
        if entry == 0:
            c = control(world, 0)
            c.fault_address = va
            c.fault_mkey = mkey_row
            c.fault_write = 1 if write else 0
            return FAULT
        offset = within & WITHIN_PAGE
        chunk = min(length, PAGE_BYTES - offset)
        s = add_segment(world, p, chunk, paged, via)
        s.frame = f = ((entry >> MTT_FRAME_SHIFT) & FRAME_MASK) + (within >> PAGE_SHIFT)
        s.generation = frame(world, f).generation
        s.offset = offset
        s.entry = entry
        s.page = page
        if chunk == length:
            return OK
        va += chunk
        length -= chunk
        if row.segments >= SEGMENTS_PER_PACKET:
            return TOO_MANY


@jit
def check_sges(world, q_row, pd, sges, count, access):
    """Total bytes of an SGE list whose keys, PDs, ranges and rights are good, else -1."""
    total = 0
    later = has(world, qp(world, q_row).nic, LATE_ELEMENTS)
    for i in range(count):
        at = sges + i * SGE_BYTES
        length = load32(at + SGE_LENGTH)
        if (
            length != 0
            and not later
            and check_mkey(world, q_row, load32(at + SGE_LKEY), pd, load64(at + SGE_ADDR), length, access) == 0
        ):
            return -1
        total += length
    return total


@jit
def translate_sges(world, p, pd, sges, count, skip, length, write):
    """Segments of ``length`` bytes of an SGE list from byte ``skip`` on: OK, FAULT, BAD_KEY, TOO_SHORT or TOO_MANY.

    Keys, PD, range and rights are checked again, for the ring is the program's memory: a region deregistered or a WQE
    changed since the first check gives BAD_KEY, never a stale or foreign translation.
    """
    q_row = packet(world, p).qp
    access = LOCAL_WRITE if write else 0
    for i in range(count):
        if length == 0:
            return OK
        at = sges + i * SGE_BYTES
        size = load32(at + SGE_LENGTH)
        if skip >= size:
            skip -= size
            continue
        va = load64(at + SGE_ADDR)
        mkey_row = check_mkey(world, q_row, load32(at + SGE_LKEY), pd, va, size, access)
        if mkey_row == 0:
            return BAD_KEY
        chunk = min(size - skip, length)
        verdict = translate_range(world, p, mkey_row, va + skip, chunk, write)
        if verdict != OK:
            return verdict
        length -= chunk
        skip = 0
    return OK if length == 0 else TOO_SHORT


@jit
def hold(world, p, until):
    """The DMA of packet ``p`` moves at ``until`` ns: invalidations of its mkeys drain that long."""
    row = packet(world, p)
    for i in range(row.segments):
        s = segment_of(world, p, i)
        m = mkey(world, s.mkey)
        m.busy_until = max(m.busy_until, until)
        if s.via != s.mkey:
            m = mkey(world, s.via)
            m.busy_until = max(m.busy_until, until)


@jit
def commit_later(world, q_row, p):
    """Packet ``p`` commits at least the PCIe latency from now, behind those before it: its second DMA instant."""
    q = qp(world, q_row)
    n = nic(world, q.nic)
    n.dma_last = max(n.dma_last, control(world, 0).now + n.pcie_latency_ns + n.translation_delay)
    hold(world, p, n.dma_last)
    q.commit_until = n.dma_last
    push(world, n.dma_last, units.COMMIT, p, q.incarnation)


@jit
def observe(world, p, write):
    """A packet's bytes are about to move: event log and sanitizer."""
    c = control(world, 0)
    if c.trace | c.sanitizer != 0:
        observe_segments(world, p, write)


@cold
def observe_segments(world, p, write):
    """``observe``, if anybody does."""
    row = packet(world, p)
    for i in range(row.segments):
        s = segment_of(world, p, i)
        if s.frame != 0:
            sanitizer.check(world, row.kind, s, write)
        trace(world, DMA, row.kind, mkey(world, s.mkey).number, s.page, s.length, write)


@jit
def copy_segment(world, s, at, write):
    """Bytes between host address ``at`` and one segment. False if the program took the page away."""
    if s.frame == 0:
        move_unpaged(s.entry, at, s.length, write)
        return True
    if write:
        return write_frame(world, s.frame, s.offset, at, s.length)
    return read_frame(world, s.frame, s.offset, at, s.length)


@cold
def move_unpaged(memory, at, length, write):
    """Bytes between ``at`` and device memory; ``memory`` 0, the null mkey: writes vanish, reads give zeros."""
    if memory == 0:
        if not write:
            fill_bytes(at, 0, length)
    elif write:
        copy_bytes(memory, at, length)
    else:
        copy_bytes(at, memory, length)


@jit
def copy_segments(world, p, at, write):
    """Bytes between host address ``at`` and all segments of a packet. False if the program took a page away."""
    good = True
    for i in range(packet(world, p).segments):
        s = segment_of(world, p, i)
        copied = copy_segment(world, s, at, write)
        good = good and copied
        at += s.length
    return good


@jit
def is_bulk(opcode):
    """Data of RDMA WRITE and READ: nothing in the device looks at it."""
    return bth.is_write(opcode) or bth.READ_RESP_FIRST <= opcode <= bth.READ_RESP_ONLY


@jit
def lends(world, p):
    """A gather need not copy: the packet borrows its bytes, which lie in one page."""
    row = packet(world, p)
    if row.segments != 1 or row.transport != bth.RC or not is_bulk(row.opcode):
        return False
    s = segment_of(world, p, 0)
    return lend(world, p, s.frame, s.offset)


@jit
def before_scatter(world, p):
    """Packet ``p`` is about to be written to memory."""
    for i in range(packet(world, p).segments):
        before_write(world, segment_of(world, p, i).frame)


@jit
def move(world, p, write):
    """Second instant: bytes between the payload buffer and the frames. False if the program took a page away."""
    row = packet(world, p)
    observe(world, p, write)
    if control(world, 0).timing_only and is_bulk(row.opcode):
        return True
    if has(world, row.kind, PAGE_OFFSET):
        return call(vector(world, units.MISPLACE).address, world, p, write) != 0
    if write:
        before_scatter(world, p)
    elif lends(world, p):
        return True
    if copy_segments(world, p, payload_of(world, p) - row.grh, write):
        return True
    return row.lent != 0 and scatter_kept(world, p)


@cold
def scatter_kept(world, p):
    """A lent payload did not reach its place: the page it goes to is gone, or, by another thread of the program, that
    which it comes from."""
    keep(world, p)
    return copy_segments(world, p, payload_address(world, p), True)


def misplace(world, p, write):
    """MISPLACE: as ``copy_segments``, with a defect of rxe_odp.c: in on-demand memory every piece begins where its page
    does, and the pieces of an element in other pages than its first bring the first's bytes again. 0: a page is gone.
    """
    good = True
    if write:
        before_scatter(world, p)
    element = at = payload_of(world, p) - packet(world, p).grh
    for i in range(packet(world, p).segments):
        s = segment_of(world, p, i)
        if mkey(world, s.mkey).flags & ON_DEMAND:
            if i == 0 or s.offset != 0 or s.via != segment_of(world, p, i - 1).via:
                element = at
            s.offset = 0
            copied = copy_segment(world, s, element, write)
        else:
            copied = copy_segment(world, s, at, write)
        good = good and copied
        at += s.length
    return 1 if good else 0


@jit
def atomic_word(world, p, compare, swap, is_add):
    """Read-modify-write of the 8 bytes of packet ``p``; the old value lands in ``result``.

    Their va is aligned, their address need not be: a region's first byte may lie anywhere in its page.
    """
    row = packet(world, p)
    scratch = payload_address(world, p)
    observe(world, p, True)
    before_scatter(world, p)
    if not copy_segments(world, p, scratch, False):
        return False
    old = load64(scratch)
    row.result = old
    if is_add:
        store64(scratch, wrapping_add(old, compare))
    elif old == compare:
        store64(scratch, swap)
    else:
        return True
    return copy_segments(world, p, scratch, True)


@jit
def wrapping_add(a, b):
    """64-bit addition that wraps, without relying on overflow (it also runs as plain Python)."""
    low = (a & 0xFFFFFFFF) + (b & 0xFFFFFFFF)
    high = (a >> 32) + (b >> 32) + (low >> 32)
    high = ((high + 0x80000000) & 0xFFFFFFFF) - 0x80000000
    return high * 0x100000000 + (low & 0xFFFFFFFF)
