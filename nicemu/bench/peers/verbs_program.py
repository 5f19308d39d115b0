# mypy: ignore-errors
"""An ordinary pyverbs program, for nicemu and for the soft-RoCE guest: two RC queue pairs of one device, loopback.

    verbs_program.py ping-pong | stream

Prints wall and CPU seconds, then counts. Needs nothing but pyverbs.
"""

import sys
import time

import pyverbs.enums as e
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context, get_device_list
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE
PINGS, MESSAGES, SIZE, DEPTH = 1000, 256, 65536, 16


def gid_index(context):
    """Of an IPv4 address if there is one: kernels differ in their order."""
    gids = [context.query_gid(1, index).gid for index in range(context.query_port(1).gid_tbl_len)]
    mapped = [index for index, gid in enumerate(gids) if "0000:ffff:" in gid]
    return mapped[-1] if mapped else next(index for index, gid in enumerate(gids) if gid.strip("0:"))


class End:
    """One side: CQ, MR, QP."""

    def __init__(self, context, pd):
        self.cq = CQ(context, 4 * DEPTH)
        self.mr = MR(pd, SIZE, ACCESS)
        cap = QPCap(max_send_wr=DEPTH, max_recv_wr=DEPTH, max_send_sge=1, max_recv_sge=1)
        self.qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap))

    def connect(self, peer, context, index):
        """To RTS."""
        attr = QPAttr(port_num=1)
        attr.path_mtu, attr.dest_qp_num, attr.qp_access_flags = e.IBV_MTU_1024, peer.qp.qp_num, ACCESS
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
        attr.min_rnr_timer, attr.rnr_retry, attr.retry_cnt, attr.timeout = 12, 7, 7, 18
        route = GlobalRoute(dgid=context.query_gid(1, index), sgid_index=index)
        attr.ah_attr = AHAttr(port_num=1, is_global=1, gr=route)
        self.qp.to_rts(attr)

    def wait(self, opcode, count=1):
        """Poll until so many of a kind have completed."""
        while count:
            for completion in self.cq.poll(DEPTH)[1]:
                assert completion.status == e.IBV_WC_SUCCESS, completion
                count -= completion.opcode == opcode


def ping_pong(a, b):
    """64-byte SENDs there and back."""
    sends = [SendWR(num_sge=1, sg=[SGE(end.mr.buf, 64, end.mr.lkey)]) for end in (a, b)]
    receives = [RecvWR(num_sge=1, sg=[SGE(end.mr.buf, 64, end.mr.lkey)]) for end in (a, b)]
    b.qp.post_recv(receives[1])
    for _ in range(PINGS):
        a.qp.post_recv(receives[0])
        a.qp.post_send(sends[0])
        b.wait(e.IBV_WC_RECV)
        b.qp.post_recv(receives[1])
        b.qp.post_send(sends[1])
        a.wait(e.IBV_WC_RECV)
    return {"calls": PINGS}


def stream(a, b):
    """64 KiB WRITEs, 16 under way."""
    wr = SendWR(num_sge=1, sg=[SGE(a.mr.buf, SIZE, a.mr.lkey)], opcode=e.IBV_WR_RDMA_WRITE)
    wr.set_wr_rdma(b.mr.rkey, b.mr.buf)
    for number in range(MESSAGES):
        a.qp.post_send(wr)
        if number >= DEPTH - 1:
            a.wait(e.IBV_WC_RDMA_WRITE)
    a.wait(e.IBV_WC_RDMA_WRITE, DEPTH - 1)
    return {"messages": MESSAGES, "bytes": MESSAGES * SIZE}


def main():
    """Run what the first argument says."""
    with Context(name=get_device_list()[0].name.decode()) as context, PD(context) as pd:
        a, b = End(context, pd), End(context, pd)
        index = gid_index(context)
        a.connect(b, context, index)
        b.connect(a, context, index)
        wall, cpu = time.perf_counter(), time.process_time()
        done = {"ping-pong": ping_pong, "stream": stream}[sys.argv[1]](a, b)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        for end in (a, b):
            end.qp.close()
        print(wall, cpu, *(word for item in done.items() for word in item))


main()
