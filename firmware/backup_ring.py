"""Keeps packets of UD and UC, and raw frames, whose receive hits a missing page in the NIC's pinned backup ring.

Imitates the NIC of Lesokhin et al., "Page Fault Support for Network Controllers", ASPLOS'17, where receives of a
transport that cannot ask its peer to wait do not lose a packet to a page fault. How much the ring holds is the device
profile's ``backup_ring``. Everything else comes from the default image.
"""


def unreliable_fault(world, row, arg):
    """Keep the packet (of ``arg`` bytes): yes, while the ring has room."""
    return 1
