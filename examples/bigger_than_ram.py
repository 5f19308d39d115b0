"""RDMA WRITE, then READ, over an on-demand region larger than the host's memory: every byte checked.

Plain pyverbs. The region is never pinned: while the NIC writes one end, the host swaps the other end out. To see it on
simulated RAM of 64 MiB:

    nicemu run --config reclaim --stats examples/bigger_than_ram.py [MEBIBYTES]
"""

import sys

import pyverbs.enums as e
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context, get_device_list
from pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, mmap, read, write
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, SendWR

MIB = 1 << 20
PORT, GID_INDEX = 1, 1
REMOTE = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ


def connected(ctx, pd, cq, rnr_timer=6):
    """Two RC queue pairs that talk to each other."""
    cap = QPCap(max_send_wr=16, max_recv_wr=1, max_send_sge=1, max_recv_sge=1)
    pair = [QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=cap)) for _ in range(2)]
    route = GlobalRoute(dgid=ctx.query_gid(PORT, GID_INDEX), sgid_index=GID_INDEX)
    for qp, peer in (pair, reversed(pair)):
        attr = QPAttr(port_num=PORT)
        attr.qp_access_flags, attr.dest_qp_num, attr.path_mtu = REMOTE, peer.qp_num, e.IBV_MTU_4096
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 4
        attr.min_rnr_timer, attr.rnr_retry, attr.retry_cnt, attr.timeout = rnr_timer, 7, 7, 20
        attr.ah_attr = AHAttr(port_num=PORT, is_global=1, gr=route, dlid=0)
        qp.to_rts(attr)
    return pair


def pattern(block):
    """A mebibyte that no other block has: its number in every eighth word, a counter in between."""
    words = b"".join((block * 131072 + i).to_bytes(8, "little") for i in range(512))
    return b"".join(bytes([(block + page) & 255]) * 8 + words[8:] for page in range(256))


def transfer(qp, cq, opcode, sge, address, rkey):
    """One operation on one mebibyte."""
    wr = SendWR(num_sge=1, sg=[sge], opcode=opcode)
    wr.set_wr_rdma(rkey, address)
    qp.post_send(wr)
    while True:
        count, completions = cq.poll()
        if count:
            assert completions[0].status == e.IBV_WC_SUCCESS, f"opcode {opcode}: status {completions[0].status}"
            return


def main(mebibytes=1024):
    ctx = Context(name=get_device_list()[0].name.decode())
    pd, cq = PD(ctx), CQ(ctx, 64)
    qp, _peer = connected(ctx, pd, cq)
    length = mebibytes * MIB
    region = mmap(length=length, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
    mr = MR(pd, length, REMOTE | e.IBV_ACCESS_ON_DEMAND, address=region)
    buffer = mmap(length=MIB, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
    local = MR(pd, MIB, e.IBV_ACCESS_LOCAL_WRITE, address=buffer)
    sge = SGE(buffer, MIB, local.lkey)
    for name, opcode in (("WRITE", e.IBV_WR_RDMA_WRITE), ("READ", e.IBV_WR_RDMA_READ)):
        for block in range(mebibytes):
            if opcode == e.IBV_WR_RDMA_WRITE:
                write(buffer, pattern(block), MIB)
            transfer(qp, cq, opcode, sge, region + block * MIB, mr.rkey)
            if opcode == e.IBV_WR_RDMA_READ:
                assert read(buffer, MIB) == pattern(block), f"mebibyte {block}: wrong bytes"
            if (block + 1) % 64 == 0:
                print(f"{name} {block + 1} of {mebibytes} MiB", flush=True)
    print(f"{mebibytes} MiB written and read back over one on-demand region: every byte right")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
