"""DMA in two instants: translate (record frame, generation, stamp), and move the bytes at least the PCIe latency later.

The second instant falls into an event that exists anyway: a packet's departure, or its commit at the receiver. An
mkey remembers when its last DMA will have moved, which is what an invalidation drains.
"""

from nicemu._jit import jit, load32, load64, store64
from nicemu.abi.command import MTT_FRAME_BITS, MTT_FRAME_SHIFT, MTT_WRITE
from nicemu.abi.rings import SGE_ADDR, SGE_BYTES, SGE_LENGTH, SGE_LKEY
from nicemu.abi.verbs import PAGE_SHIFT, Access
from nicemu.memory import sanitizer
from nicemu.memory.copy import read_frame, write_frame
from nicemu.nic.iotlb import translate
from nicemu.nic.mkey import check_mkey
from nicemu.tables.packets import payload_address
from nicemu.tables.records import SEGMENTS_PER_PACKET
from nicemu.tables.rows import control, frame, mkey, packet, segment
from nicemu.tables.trace import Ev, trace

OK, FAULT, BAD_KEY, TOO_SHORT, TOO_MANY = 0, 1, 2, 3, 4
"""Verdicts of building a gather or scatter list."""

FRAME_MASK = (1 << MTT_FRAME_BITS) - 1
PAGE_BYTES = 1 << PAGE_SHIFT
PAGE_OFFSET = PAGE_BYTES - 1
LOCAL_WRITE = int(Access.LOCAL_WRITE)
DMA = int(Ev.DMA)


@jit
def translate_range(world, p, mkey_row, va, length, write):
    """Append the segments of ``va .. va+length`` to packet ``p``: OK, or FAULT with fault_mkey and fault_address.

    The range was checked against the mkey before; only presence and the write bit are decided here.
    """
    row = packet(world, p)
    m = mkey(world, mkey_row)
    c = control(world, 0)
    base_page = m.base >> PAGE_SHIFT
    while length > 0:
        page = (va >> PAGE_SHIFT) - base_page
        entry = translate(world, row.kind, mkey_row, page)
        if entry == 0 or (write and entry & MTT_WRITE == 0):
            c.fault_address = va
            c.fault_mkey = mkey_row
            return FAULT
        if row.segments >= SEGMENTS_PER_PACKET:
            return TOO_MANY
        offset = va & PAGE_OFFSET
        chunk = min(length, PAGE_BYTES - offset)
        s = segment(world, p * SEGMENTS_PER_PACKET + row.segments)
        s.frame = (entry >> MTT_FRAME_SHIFT) & FRAME_MASK
        s.generation = frame(world, s.frame).generation
        s.offset = offset
        s.length = chunk
        s.entry = entry
        s.mkey = mkey_row
        s.page = page
        s.time = c.now
        row.segments += 1
        va += chunk
        length -= chunk
    return OK


@jit
def check_sges(world, q_row, pd, sges, count, access):
    """Total bytes of an SGE list whose keys, PDs, ranges and rights are good, else -1."""
    total = 0
    for i in range(count):
        at = sges + i * SGE_BYTES
        length = load32(at + SGE_LENGTH)
        if (
            length != 0
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
        m = mkey(world, segment(world, p * SEGMENTS_PER_PACKET + i).mkey)
        m.busy_until = max(m.busy_until, until)


@jit
def move(world, p, write):
    """Second instant: bytes between the payload buffer and the frames. False if the program took a page away."""
    row = packet(world, p)
    at = payload_address(world, p) - row.grh
    good = True
    for i in range(row.segments):
        s = segment(world, p * SEGMENTS_PER_PACKET + i)
        sanitizer.check(world, row.kind, s, write)
        trace(world, DMA, row.kind, mkey(world, s.mkey).number, s.page, s.length, write)
        if write:
            moved = write_frame(world, s.frame, s.offset, at, s.length)
        else:
            moved = read_frame(world, s.frame, s.offset, at, s.length)
        good = good and moved
        at += s.length
    return good


@jit
def atomic_word(world, p, compare, swap, is_add):
    """Read-modify-write of the aligned 8 bytes of packet ``p``'s only segment; the old value lands in ``result``."""
    row = packet(world, p)
    s = segment(world, p * SEGMENTS_PER_PACKET)
    sanitizer.check(world, row.kind, s, True)
    trace(world, DMA, row.kind, mkey(world, s.mkey).number, s.page, 8, 1)
    scratch = payload_address(world, p)
    if not read_frame(world, s.frame, s.offset, scratch, 8):
        return False
    old = load64(scratch)
    row.result = old
    if is_add:
        store64(scratch, wrapping_add(old, compare))
    elif old == compare:
        store64(scratch, swap)
    else:
        return True
    return write_frame(world, s.frame, s.offset, scratch, 8)


@jit
def wrapping_add(a, b):
    """64-bit addition that wraps, without relying on overflow (it also runs as plain Python)."""
    low = (a & 0xFFFFFFFF) + (b & 0xFFFFFFFF)
    high = (a >> 32) + (b >> 32) + (low >> 32)
    high = ((high + 0x80000000) & 0xFFFFFFFF) - 0x80000000
    return high * 0x100000000 + (low & 0xFFFFFFFF)
