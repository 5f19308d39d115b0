"""A scenario as a plain pyverbs program: its memory, MRs, threads and calls, without the schedule.

The steps of the kernel cannot be commanded from a program; where a call makes them likely it stands there, else a
comment. On an emulated or real device the program runs the threads at the same time, again and again.
"""

from __future__ import annotations

from nicemu.check.scenario import Area, Scenario

HEADER = '''"""{name}: {what}.

Written by `nicemu check {name} --export`. Runs on any device with ODP: `python3 THIS [ROUNDS]`.
"""
import ctypes
import mmap as mmap_module
import os
import signal
import sys
import threading

import pyverbs.enums as e
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context, get_device_list
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, SendWR

PAGE = 4096
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
for call in (libc.munmap, libc.madvise, libc.mprotect):
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int][: 2 if call is libc.munmap else 3]
ODP = e.IBV_ACCESS_ON_DEMAND | e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
READABLE = e.IBV_ACCESS_ON_DEMAND | e.IBV_ACCESS_REMOTE_READ
PINNED = ODP & ~e.IBV_ACCESS_ON_DEMAND
mrs, children = {{}}, []


def check(result):
    if result in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def new_area(pages, fill, flags=0x22, fd=-1):
    at = check(libc.mmap(None, pages * PAGE, 3, flags, fd, 0))
    for page in range(pages):
        ctypes.memset(at + page * PAGE, (fill + page) & 255, PAGE)
    return at


def register(at, pages, access=ODP):
    mrs[at] = MR(pd, pages * PAGE, access, address=at), pages * PAGE


def mr_of(at):
    return next(mr for start, (mr, length) in mrs.items() if start <= at < start + length)


def fill(at, length, value):
    ctypes.memset(at, value, length)


def look(at, length):
    return ctypes.string_at(at, length)


def munmap(at, length):
    check(libc.munmap(at, length))


def madvise(at, length, advice):
    check(libc.madvise(at, length, advice))


def mprotect(at, length, prot):
    check(libc.mprotect(at, length, prot))


def mremap(at, length, new_length):
    return check(libc.mremap(at, length, new_length, 1))


def advise_mr(at, length, advice):
    pd.advise_mr(advice, 1, [SGE(at, length, mr_of(at).lkey)])


class Peer:
    """An RC pair and a pinned buffer on its far side."""

    def __init__(self):
        self.cq = CQ(context, 16)
        init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=QPCap(16, 16, 1, 1))
        self.qps = [QP(pd, init), QP(pd, init)]
        for qp, far in (self.qps, self.qps[::-1]):
            route = GlobalRoute(dgid=context.query_gid(1, GID), sgid_index=GID)
            attr = QPAttr(port_num=1)
            attr.path_mtu, attr.dest_qp_num, attr.rnr_retry, attr.retry_cnt = e.IBV_MTU_1024, far.qp_num, 7, 7
            attr.timeout, attr.min_rnr_timer, attr.max_rd_atomic, attr.max_dest_rd_atomic = 14, 1, 1, 1
            attr.qp_access_flags = PINNED
            attr.ah_attr = AHAttr(gr=route, is_global=1, port_num=1)
            qp.to_rts(attr)
        self.buffer = MR(pd, 32 * PAGE, PINNED)

    def transfer(self, opcode, at, length, remote):
        mr = mr_of(at)
        near, lkey, far, rkey = self.buffer.buf, self.buffer.lkey, at, mr.rkey
        if not remote:
            near, lkey, far, rkey = at, mr.lkey, self.buffer.buf, self.buffer.rkey
        wr = SendWR(opcode=opcode, num_sge=1, sg=[SGE(near, length, lkey)], send_flags=e.IBV_SEND_SIGNALED)
        wr.set_wr_rdma(rkey, far)
        self.qps[0].post_send(wr)
        while True:
            count, completions = self.cq.poll(1)
            if count:
                return completions[0].status


def rdma_write(at, length, value):
    peer.here.buffer.write(b"".join(bytes([(value + i) & 255]) * PAGE for i in range(length // PAGE)), length)
    peer.here.transfer(e.IBV_WR_RDMA_WRITE, at, length, True)


def rdma_read(at, length):
    peer.here.transfer(e.IBV_WR_RDMA_READ, at, length, True)


def gather(at, length):
    peer.here.transfer(e.IBV_WR_RDMA_WRITE, at, length, False)


def scatter(at, length, value):
    peer.here.buffer.write(b"".join(bytes([(value + i) & 255]) * PAGE for i in range(length // PAGE)), length)
    peer.here.transfer(e.IBV_WR_RDMA_READ, at, length, False)


peer = threading.local()
context = Context(name=get_device_list()[0].name.decode())
pd = PD(context)
GID = 1
'''

FOOTER = """

if __name__ == "__main__":
    try:
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
            round_()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
    print("done")
"""


def export(scenario: Scenario) -> str:
    """The program's text."""
    lines = [HEADER.format(name=scenario.name, what=scenario.what), "", "def round_():"]
    pages = {area.name: area.pages for area in scenario.areas}
    body = [f"pages_of = {pages}", *(line for area in scenario.areas for line in _area(area))]
    body += [line for operation in scenario.before for line in operation.code()]
    body += [f"{name} = None" for name in _areas(scenario)[len(scenario.areas) :]]
    names = []
    for number, (name, operations) in enumerate(scenario.threads.items()):
        body += ["", f"def thread_{number}():  # {name}", f"    nonlocal {', '.join(_areas(scenario))}"]
        body += ["    peer.here = peers.pop()"]
        body += [f"    {line}" for operation in operations for line in operation.code()]
        names.append(f"thread_{number}")
    body += ["", f"peers = [Peer() for _ in range({len(names)})]",
             f"threads = [threading.Thread(target=target) for target in ({', '.join(names)},)]",
             "for thread in threads:", "    thread.start()", "for thread in threads:", "    thread.join()"]  # fmt: skip
    lines += [f"    {line}" if line else "" for line in body]
    return "\n".join(lines) + FOOTER


def _areas(scenario: Scenario) -> list[str]:
    """Every variable that the threads assign or use."""
    moved = [each.to for thread in scenario.threads.values() for each in thread if hasattr(each, "to")]
    children = [each.child for thread in scenario.threads.values() for each in thread if hasattr(each, "child")]
    return [area.name for area in scenario.areas] + moved + children


def _area(area: Area) -> list[str]:
    flags = (0x01 if area.shared else 0x02) | (0 if area.file else 0x20) | area.flags
    if area.file:
        yield_fd = f'os.memfd_create("{area.file}")'
        lines = [f"{area.name}_fd = {yield_fd}", f"os.ftruncate({area.name}_fd, {area.pages} * PAGE)"]
        lines.append(f"{area.name} = new_area({area.pages}, {area.fill}, {flags:#x}, {area.name}_fd)")
    else:
        lines = [f"{area.name} = new_area({area.pages}, {area.fill}, {flags:#x})"]
    if area.odp:
        access = "" if area.writable else ", READABLE"
        lines.append(f"register({area.name}, {area.pages}{access})")
    return lines
