"""Backup ring: pinned memory for packets of UD and UC, and raw frames, whose receive hits a missing page (Lesokhin et
al., ASPLOS'17); with firmware that answers no RNR NAK (``hooks.STALL``), of RC and XRC too.

A packet in the ring stays at the head of its QP's queue of requests, and what arrives for that QP queues in the ring
behind it: a QP's packets are judged in the order they came. The resume of the page fault lets the queue go on. The
ring is the NIC's, so many packets and so many bytes; what finds it full is dropped. Firmware decides whether a packet
is kept at all.

Left out: the ring's own DMA; a packet enters and leaves it in no time.
"""

from nicemu._jit import cold, jit
from nicemu.nic import hooks
from nicemu.nic.hooks import ask
from nicemu.tables.rows import nic, packet, qp
from nicemu.tables.trace import Ev, trace

BACKUP_RING = int(Ev.BACKUP_RING)
HEADER_BYTES = 64
"""What a packet takes in the ring besides its payload."""


@cold
def enter(world, n, row):
    """The packet takes its place, or has one. False: the ring is full."""
    if row.in_backup:
        return True
    size = row.payload + HEADER_BYTES
    if n.backup_packets >= n.backup_entries or n.backup_used + size > n.backup_bytes:
        n.backup_ring_drops += 1
        return False
    row.in_backup = 1
    n.backup_packets += 1
    n.backup_used += size
    n.backup_ring_packets += 1
    trace(world, BACKUP_RING, n.number, row.dest_qpn, row.psn, row.payload, n.backup_packets)
    return True


@cold
def keep(world, q_row, row):
    """A page that the packet needs is missing: firmware keeps it, and there is room. Else it is dropped and counted."""
    q = qp(world, q_row)
    n = nic(world, q.nic)
    kept = ask(world, q.nic, hooks.UNRELIABLE_FAULT, q_row, row.payload) != 0 and enter(world, n, row)
    if not kept:
        n.fault_drops += 1
    return kept


@jit
def leave(n, row, delivered):
    """The packet gives its place back, if it has one: delivered or discarded."""
    if row.in_backup == 0:
        return
    row.in_backup = 0
    n.backup_packets -= 1
    n.backup_used -= row.payload + HEADER_BYTES
    if delivered:
        n.backup_ring_delivered += 1
    else:
        n.backup_ring_discards += 1


@cold
def suspend(world, q_row, p):
    """Packet ``p`` goes back to the head of its QP's queue, which waits for the resume."""
    packet(world, p).segments = 0
    queue_first(world, q_row, p)
    qp(world, q_row).recv_suspended = 1


@jit
def queue_first(world, q_row, p):
    """Packet ``p`` is the next that the responder takes."""
    q = qp(world, q_row)
    row = packet(world, p)
    if row.counted:
        q.rx_non_posted += 1
    row.next = q.rx_head
    if q.rx_head == 0:
        q.rx_tail = p
    q.rx_head = p
    q.rx_waiting += 1
    nic(world, q.nic).rx_waiting += 1
