"""Ping-pong over on-demand memory: every RC operation, with the operating system taking pages away in between.

Plain pyverbs: it knows nothing of nicemu and runs on any device with ODP. Two queue pairs of one
process talk to each other. Between operations the buffers lose their pages by madvise(DONTNEED), munmap and mmap,
fork with copy-on-write, and page-out; the NIC must notice each time. Every byte is checked: on soft-RoCE of Linux 7.3,
and with `--config rxe`, it finds wrong ones, since packets that do not start on a page go wrong there (docs/rxe.md).

    nicemu run --stats examples/odp_pingpong.py [ITERATIONS] [DEVICE]
"""

import os
import sys

import pyverbs.enums as e
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context, get_device_list
from pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_FIXED_, MAP_PRIVATE_, madvise, mmap, munmap, read, write
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

LENGTH = 6 * 4096 + 512
ATOMICS = 12
PORT, GID_INDEX = 1, 1
MADV_DONTNEED, MADV_PAGEOUT = 4, 21
ANONYMOUS = MAP_PRIVATE_ | MAP_ANONYMOUS_
ACCESS = (e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
          | e.IBV_ACCESS_REMOTE_ATOMIC | e.IBV_ACCESS_ON_DEMAND)  # fmt: skip


class Side:
    """A QP and its on-demand buffer."""

    def __init__(self, ctx):
        self.ctx, self.pd, self.cq = ctx, PD(ctx), CQ(ctx, 64)
        self.address = mmap(length=LENGTH, flags=ANONYMOUS)
        self.mr = MR(self.pd, LENGTH, ACCESS, address=self.address)
        cap = QPCap(max_send_wr=16, max_recv_wr=16, max_send_sge=2, max_recv_sge=2)
        attr = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap, sq_sig_all=1)
        self.qp = QP(self.pd, attr, QPAttr(port_num=PORT))

    def connect(self, peer):
        """Bring the QP to RTS."""
        gid = self.ctx.query_gid(PORT, GID_INDEX)
        attr = QPAttr(port_num=PORT)
        attr.qp_access_flags = ACCESS & ~e.IBV_ACCESS_ON_DEMAND
        attr.dest_qp_num, attr.path_mtu = peer.qp.qp_num, e.IBV_MTU_1024
        attr.rq_psn, attr.sq_psn = peer.qp.qp_num, self.qp.qp_num
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 4
        attr.min_rnr_timer, attr.rnr_retry, attr.retry_cnt, attr.timeout = 12, 7, 7, 18
        route = GlobalRoute(dgid=gid, sgid_index=GID_INDEX)
        attr.ah_attr = AHAttr(port_num=PORT, is_global=1, gr=route, dlid=0)
        self.qp.to_init(attr)
        self.qp.to_rtr(attr)
        self.qp.to_rts(attr)

    def sge(self, length=LENGTH):
        """All of the buffer."""
        return SGE(self.address, length, self.mr.lkey)

    def wait(self, what):
        """The next completion, which must be a success."""
        for _ in range(100_000):
            count, completions = self.cq.poll()
            if count:
                assert completions[0].status == e.IBV_WC_SUCCESS, f"{what}: status {completions[0].status}"
                return completions[0]
        raise TimeoutError(what)

    def fill(self, data):
        """The program writes its buffer."""
        write(self.address, data, len(data))

    def check(self, expected, what):
        """The program reads its buffer: every byte."""
        got = read(self.address, len(expected))
        wrong = [i for i in range(len(expected)) if got[i] != expected[i]]
        assert not wrong, f"{what}: {len(wrong)} wrong bytes, first at {wrong[0]}"


def pattern(seed):
    """Bytes that differ from page to page and from run to run."""
    return bytes((seed * 37 + i * 7 + (i >> 8) * 13 + (i >> 12) * 101) & 255 for i in range(LENGTH))


def take_pages_away(side, way):
    """What an operating system does to a process's pages while a NIC uses them."""
    if way == "dontneed":
        madvise(side.address, LENGTH, MADV_DONTNEED)
    elif way == "munmap":
        munmap(side.address, LENGTH)
        assert mmap(side.address, LENGTH, flags=ANONYMOUS | MAP_FIXED_) == side.address
    elif way == "pageout":
        madvise(side.address, LENGTH, MADV_PAGEOUT)
    elif way == "fork":
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)


def transfer(client, server, opcode, data, seed, midway):
    """One operation from client to server; where the bytes end up is checked."""
    if opcode in (e.IBV_WR_ATOMIC_CMP_AND_SWP, e.IBV_WR_ATOMIC_FETCH_AND_ADD):
        atomics(client, server, opcode, data, midway)
        return
    source, target = (server, client) if opcode == e.IBV_WR_RDMA_READ else (client, server)
    source.fill(data)
    wr = SendWR(wr_id=seed, num_sge=1, sg=[client.sge()], opcode=opcode, imm_data=seed)
    takes_recv = opcode in (e.IBV_WR_SEND, e.IBV_WR_SEND_WITH_IMM, e.IBV_WR_RDMA_WRITE_WITH_IMM)
    if takes_recv:
        server.qp.post_recv(RecvWR(wr_id=seed, num_sge=1, sg=[server.sge()]))
    if opcode not in (e.IBV_WR_SEND, e.IBV_WR_SEND_WITH_IMM):
        wr.set_wr_rdma(server.mr.rkey, server.address)
    client.qp.post_send(wr)
    midway()
    client.wait(f"opcode {opcode}")
    if takes_recv:
        assert server.wait("receive").byte_len == LENGTH
    target.check(data, f"opcode {opcode}")


def atomics(client, server, opcode, data, midway):
    """A row of atomics on one word: each must count exactly once."""
    server.fill(data)
    value = int.from_bytes(data[:8], "little")
    add = opcode == e.IBV_WR_ATOMIC_FETCH_AND_ADD
    for i in range(ATOMICS):
        wr = SendWR(wr_id=i, num_sge=1, sg=[client.sge(8)], opcode=opcode)
        wr.set_wr_atomic(server.mr.rkey, server.address, 3 if add else value + i, value + i + 1)
        client.qp.post_send(wr)
    midway()
    for _ in range(ATOMICS):
        client.wait(f"opcode {opcode}")
    step = 3 if add else 1
    client.check(((value + step * (ATOMICS - 1)) % 2**64).to_bytes(8, "little"), "value before the last atomic")
    server.check(((value + step * ATOMICS) % 2**64).to_bytes(8, "little") + data[8:], "value after the atomics")


OPERATIONS = [e.IBV_WR_SEND, e.IBV_WR_SEND_WITH_IMM, e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_WRITE_WITH_IMM,
              e.IBV_WR_RDMA_READ, e.IBV_WR_ATOMIC_CMP_AND_SWP, e.IBV_WR_ATOMIC_FETCH_AND_ADD]  # fmt: skip
WAYS = ["dontneed", "munmap", "fork", "pageout"]


def main(iterations=8, device=None):
    ctx = Context(name=device or get_device_list()[0].name.decode())
    client, server = Side(ctx), Side(ctx)
    client.connect(server)
    server.connect(client)
    done = 0
    for _ in range(iterations):
        for opcode in OPERATIONS:
            losing, phase = (server, client)[done // 6 % 2], done % 3
            # while an operation is under way its pages may go out and come back; their contents must stay
            midway = (lambda side=losing: take_pages_away(side, "pageout")) if phase == 2 else (lambda: None)
            transfer(client, server, opcode, pattern(done), done, midway)
            if phase == 0:
                take_pages_away(losing, WAYS[done // 3 % len(WAYS)])
            done += 1
    losses = done * 2 // 3
    print(f"{done} operations on {LENGTH} bytes of on-demand memory, pages taken away {losses} times: all bytes right")


if __name__ == "__main__":
    main(*(int(a) if a.isdigit() else a for a in sys.argv[1:3]))
