"""Which NICs a multicast packet is for."""

from nicemu._jit import jit
from nicemu.tables.rows import mcast, nic, packet
from nicemu.wire import opcode as bth


@jit
def has_member(world, nic_number, p):
    """The NIC has a QP in the group of the packet's destination GID; which, it finds out itself. A raw frame is for all
    NICs but its sender, and for that too if its ``dest_nic`` says so."""
    n = nic(world, nic_number)
    row = packet(world, p)
    if row.transport == bth.RAW:
        return nic_number != row.source_nic or nic_number == row.dest_nic
    for i in range(n.mcast_base, n.mcast_end):
        member = mcast(world, i)
        if member.nic == nic_number and member.mgid_high == row.dgid_high and member.mgid_low == row.dgid_low:
            return True
    return False
