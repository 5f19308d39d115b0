"""A page that only the NIC uses looks idle: reclaim takes it before one that the CPU uses.

    nicemu run --config reclaim examples/nic_only_pages.py [--young-bits]

Two on-demand regions, each an eighth of the RAM. In every round the CPU reads each page of the first, RDMA READ fetches
each page of the second, and the program writes half as much new memory that nobody looks at any more. A device sets no
accessed bit in the page table, and RDMA's notifiers have none to ask for, so the second region goes to swap and faults
back in, again and again. With --young-bits a subscriber answers ``clear_flush_young`` for the pages that the NIC used,
as KVM does for its guests.

The verbs are plain pyverbs. What is resident, and the subscriber, are the emulator's (``nicemu.uverbs.session``).
"""

import sys

import pyverbs.enums as e
from bigger_than_ram import MIB, REMOTE, connected
from pyverbs.cq import CQ
from pyverbs.device import Context, get_device_list
from pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, mmap, read, write
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.wr import SGE, SendWR

from nicemu.mm.notifier import NotifierSubscriber
from nicemu.uverbs import session

PAGE = 4096
ROUNDS, WARM_UP, PRINTED = 96, 32, 8


class YoungBits(NotifierSubscriber):
    """A secondary MMU with accessed bits."""

    name = "young-bits"

    def __init__(self):
        self.used = set()

    def clear_flush_young(self, mm, address):
        young = address in self.used
        self.used.discard(address)
        return young


def swapped_in():
    """Pages read back from swap so far."""
    return session.current().host.counters["pswpin"]


def fetch(qp, cq, buffer, lkey, source):
    """RDMA READ of a mebibyte."""
    address, rkey = source
    wr = SendWR(num_sge=1, sg=[SGE(buffer, MIB, lkey)], opcode=e.IBV_WR_RDMA_READ)
    wr.set_wr_rdma(rkey, address)
    qp.post_send(wr)
    while True:
        count, completions = cq.poll()
        if count:
            assert completions[0].status == e.IBV_WC_SUCCESS, f"status {completions[0].status}"
            return


def main(young_bits):
    ctx = Context(name=get_device_list()[0].name.decode())
    pd, cq = PD(ctx), CQ(ctx, 64)
    qp, _peer = connected(ctx, pd, cq)
    lab, young = session.current(), YoungBits()
    if young_bits:
        lab.timeline.call(lab.process.mm.notifiers.register(young), "mmu_notifier_register")
    part = lab.config.host.ram_pages * PAGE // 8 // MIB * MIB
    sizes = (part, part, ROUNDS * part // 2, MIB)
    cpu, nic, other, buffer = (mmap(length=size, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_) for size in sizes)
    local = MR(pd, MIB, e.IBV_ACCESS_LOCAL_WRITE, address=buffer)
    regions = [MR(pd, part, REMOTE | e.IBV_ACCESS_ON_DEMAND, address=address) for address in (cpu, nic)]
    for address in (cpu, nic):
        for at in range(0, part, MIB):
            write(address + at, b"x" * MIB, MIB)
    print(f"{part // PAGE} pages in each region. Read back from swap when they were used again, in all:")
    back = [0, 0]
    for turn in range(ROUNDS):
        begin = swapped_in()
        for at in range(0, part, PAGE):
            read(cpu + at, 1)
        middle = swapped_in()
        for at in range(0, part, MIB):
            fetch(qp, cq, buffer, local.lkey, (nic + at, regions[1].rkey))
        end = swapped_in()
        young.used = {*range(nic, nic + part, PAGE), *range(buffer, buffer + MIB, PAGE)}
        for at in range(0, part // 2, MIB):
            write(other + turn * part // 2 + at, b"y" * MIB, MIB)
        if turn >= WARM_UP:  # in the first lap all pages look used, since they were just written
            back = [back[0] + middle - begin, back[1] + end - middle]
        if turn >= WARM_UP and (turn - WARM_UP + 1) % PRINTED == 0:
            print(f"  round {turn - WARM_UP + 1:2}: CPU's region {back[0]:6}  NIC's region {back[1]:6}", flush=True)


if __name__ == "__main__":
    main("--young-bits" in sys.argv[1:])
