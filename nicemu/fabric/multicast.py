"""Which NICs a multicast packet is for."""

from nicemu._jit import jit
from nicemu.tables.rows import mcast, nic, packet


@jit
def has_member(world, nic_number, p):
    """The NIC has a QP in the group of the packet's destination GID; which, it finds out itself."""
    n = nic(world, nic_number)
    row = packet(world, p)
    for i in range(n.mcast_base, n.mcast_base + n.mcast_count):
        member = mcast(world, i)
        if member.nic == nic_number and member.mgid_high == row.dgid_high and member.mgid_low == row.dgid_low:
            return True
    return False
