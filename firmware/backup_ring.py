"""Keeps packets of UD and UC, and raw frames, whose receive hits a missing page in the NIC's pinned backup ring.

Imitates: a NIC whose receives of a transport that cannot ask its peer to wait lose no packet to a page fault.
Source: Lesokhin et al., "Page Fault Support for Network Controllers", ASPLOS'17.
Inferred: the ring's size (the profile's ``backup_ring``), and that the NIC and not the driver delivers from it.
"""


def unreliable_fault(world, row, arg):
    """Keep the packet (of ``arg`` bytes): yes, while the ring has room."""
    return 1
