"""Datagrams into on-demand memory: what a page fault costs a transport that cannot ask its peer to wait.

Plain pyverbs: it knows nothing of nicemu and runs on any device with ODP. A UD queue pair sends bursts of numbered
datagrams to another one, whose buffers the device has never seen; halfway the operating system takes them away again. A
NIC that drops what faults brings in one buffer a burst and loses the rest: the cold-ring problem of Lesokhin et al.,
"Page Fault Support for Network Controllers" (ASPLOS'17). One with a backup ring loses nothing.

    nicemu run examples/ud_backup_ring.py [BURSTS] [DATAGRAMS]
    nicemu run --firmware backup_ring examples/ud_backup_ring.py [BURSTS] [DATAGRAMS]
"""

import sys

import pyverbs.enums as e
from pyverbs.addr import AH, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context, get_device_list
from pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, madvise, mmap, read, write
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

PAGE, GRH, BYTES = 4096, 40, 1000
PORT, GID_INDEX, QKEY = 1, 1, 0x11
MADV_DONTNEED = 4
QUIET_POLLS = 1000
"""Polls without a completion after which nothing more will come."""


class End:
    """A UD QP in RTS with a buffer of one page a datagram."""

    def __init__(self, ctx, datagrams, access):
        self.ctx, self.pd, self.cq = ctx, PD(ctx), CQ(ctx, 2 * datagrams)
        self.length = datagrams * PAGE
        self.address = mmap(length=self.length, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
        self.mr = MR(self.pd, self.length, e.IBV_ACCESS_LOCAL_WRITE | access, address=self.address)
        cap = QPCap(max_send_wr=datagrams, max_recv_wr=datagrams, max_send_sge=1, max_recv_sge=1)
        attr = QPInitAttr(qp_type=e.IBV_QPT_UD, scq=self.cq, rcq=self.cq, cap=cap, sq_sig_all=1)
        state = QPAttr(port_num=PORT)
        state.qkey = QKEY
        self.qp = QP(self.pd, attr, state)
        self.receives = self.slot = 0

    def sge(self, slot, length):
        """A datagram's page."""
        return SGE(self.address + slot * PAGE, length, self.mr.lkey)

    def address_of(self, peer):
        """An address handle of the peer."""
        route = GlobalRoute(dgid=peer.ctx.query_gid(PORT, GID_INDEX), sgid_index=GID_INDEX)
        return AH(self.pd, attr=AHAttr(port_num=PORT, is_global=1, gr=route, dlid=0))

    def replenish(self, datagrams):
        """Post receives until there are ``datagrams``, page by page around the buffer."""
        for _ in range(datagrams - self.receives):
            self.qp.post_recv(RecvWR(wr_id=self.slot, num_sge=1, sg=[self.sge(self.slot, PAGE)]))
            self.slot = (self.slot + 1) % datagrams
        self.receives = datagrams


def burst(sender, receiver, ah, datagrams):
    """Send numbered datagrams; the numbers that arrive, in the order of their completions."""
    receiver.replenish(datagrams)
    for number in range(datagrams):
        write(sender.address + number * PAGE, number.to_bytes(4, "little"), 4)
        wr = SendWR(wr_id=number, num_sge=1, sg=[sender.sge(number, BYTES)], opcode=e.IBV_WR_SEND)
        wr.set_wr_ud(ah, receiver.qp.qp_num, QKEY)
        sender.qp.post_send(wr)
    arrived, quiet = [], 0
    while quiet < QUIET_POLLS and len(arrived) < datagrams:
        sender.cq.poll(datagrams)
        count, completions = receiver.cq.poll(datagrams)
        quiet = 0 if count else quiet + 1
        for wc in completions:
            assert wc.status == e.IBV_WC_SUCCESS, f"receive: status {wc.status}"
            assert wc.byte_len == BYTES + GRH
            arrived.append(int.from_bytes(read(receiver.address + wc.wr_id * PAGE + GRH, 4), "little"))
    receiver.receives -= len(arrived)
    return arrived


def main(bursts=8, datagrams=16):
    ctx = Context(name=get_device_list()[0].name.decode())
    sender, receiver = End(ctx, datagrams, 0), End(ctx, datagrams, e.IBV_ACCESS_ON_DEMAND)
    ah = sender.address_of(receiver)
    counts = []
    for number in range(bursts):
        if number == bursts // 2:
            madvise(receiver.address, receiver.length, MADV_DONTNEED)
        arrived = burst(sender, receiver, ah, datagrams)
        assert arrived == sorted(arrived), f"out of order: {arrived}"
        counts.append(len(arrived))
    print(f"{bursts} bursts of {datagrams} datagrams into cold buffers, arrived in each:", *counts)
    print(f"{sum(counts)} of {bursts * datagrams} arrived, in order")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
