"""Payload that is lent: bytes of an RC WRITE or READ stay where their sender has them, and are copied once, at COMMIT.

A packet that left has its bytes from that instant on. So they move into its payload buffer, are *kept*, before anybody
changes them: before the device writes into the page they lie in, and before compiled code returns to Python and the
program runs. ``FRAME.lent`` counts the packets that borrow of a page; those that ever did since all was kept form a
chain.

Not lent: memory that the program owns, and may have mapped twice; what is not there any more, as one byte of the page
tells when the packet leaves; what another process could see completed while we run (UC, UD); what something in the
device looks at (SEND, atomics); anything while packets are impaired or captured, or where copies go through the kernel.
That a program maps memory over the arena behind our back, in two places, is not seen.
"""

from nicemu._jit import cold, fill_bytes, jit
from nicemu.memory.copy import can_read, copy
from nicemu.tables.packets import give_back, payload_address
from nicemu.tables.records import FrameKind
from nicemu.tables.rows import control, fabric, frame, packet

PROGRAM = int(FrameKind.PROGRAM)
MOST = 255
"""Packets that borrow of one page."""


@jit
def lend(world, p, f, offset):
    """The payload of packet ``p`` is what frame ``f`` has from byte ``offset`` on. False: it may not be."""
    row, page, c = packet(world, p), frame(world, f), control(world, 0)
    if f == 0 or page.kind == PROGRAM or page.pointer == 0 or page.lent == MOST or fabric(world, 0).impairments != 0:
        return False
    address = page.pointer + offset
    if c.capture != 0 or not can_read(world, address):
        return False
    row.lent, row.lent_at = f, address
    page.lent += 1
    if row.chained == 0:
        row.chained, row.chain, c.lent_chain = 1, c.lent_chain, p
    return True


@cold
def keep(world, p):
    """Packet ``p`` gets its payload into its own buffer, if it borrows."""
    row = packet(world, p)
    if row.lent != 0:
        if not copy(world, payload_address(world, p), row.lent_at, row.payload, False):
            fill_bytes(payload_address(world, p), 0, row.payload)  # another thread of the program took it away
        give_back(world, row)


@cold
def keep_all(world, f):
    """What packets borrow of frame ``f`` is kept; 0: of any. The others stay in the chain."""
    c = control(world, 0)
    p, c.lent_chain = c.lent_chain, 0
    while p != 0:
        row = packet(world, p)
        follower = row.chain
        if f == 0 or row.lent == f:
            keep(world, p)
        if row.lent != 0:
            row.chain, c.lent_chain = c.lent_chain, p
        else:
            row.chained = 0
        p = follower


@jit
def before_write(world, f):
    """The device is about to write into frame ``f``."""
    if frame(world, f).lent != 0:
        keep_all(world, f)
