"""A short scenario for both ways of running kernels: every RC operation, a page fault of each side, an invalidation, a
lost peer. ``python -m tests.nojit.scenario`` prints digests of the state tables as JSON.

Addresses of rings and pointers differ from process to process; they are left out by name of the field.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np

from nicemu import _jit
from nicemu.abi.verbs import QpState, SendFlag, WrOpcode
from tests.nic.conftest import Rc, connected
from tests.nic.tags import Tagged, header, request
from tests.nic.testbench import Bench

ADDRESSES = {
    "CONTROL": {"pid", "scratch_map", "graveyard", "copy_code", "probe_code", "watch_code", "watched"},
    "NIC": {"command_ring", "memory"},
    "QP": {"sq_ring", "rq_ring", "doorbell_record"}, "CQ": {"ring", "doorbell_record"}, "FRAME": {"pointer"},
    "TAG_LIST": {"ring", "doorbell_record"}, "PACKET": {"lent_at", "chain"},
}  # fmt: skip
"""Fields that hold addresses; and the chain of packets that borrowed payload, for without JIT none does."""
TABLES = (
    "CONTROL",
    "NIC",
    "QP",
    "SQ_ENTRY",
    "CQ",
    "MKEY",
    "IOTLB",
    "FAULT",
    "RESOURCE",
    "PACKET",
    "FRAME",
    "VIOLATION",
    "TRACE",
    "NODE",
    "TAG_LIST",
    "TAG",
)


def operations(rc: Rc) -> None:
    """Every operation once, small and in several packets."""
    rc.b.post_recv(1, rc.remote.sge(3000, 4096))
    rc.send(1, 2500)
    rc.write(2, 1500, at=100)
    rc.read(3, 1300, at=5000)
    rc.add(4, 2**63 + 5, at=64)
    rc.swap(5, 0, 1, at=72)
    rc.b.post_recv(2)
    rc.a.post_send(6, WrOpcode.RDMA_WRITE_WITH_IMM, remote=rc.remote.va, rkey=rc.remote.key, imm=7, inline=b"inline")
    rc.write(7, 8, flags=SendFlag.SIGNALED | SendFlag.FENCE)
    rc.bench.run()


def faults(rc: Rc) -> None:
    """A page is invalidated on either side, then written, read, and brought back by hand."""
    for region, post in ((rc.local, rc.write), (rc.remote, rc.write), (rc.local, rc.read), (rc.remote, rc.read)):
        region.zap(0, 1)
        post(8, 1100)
        fault = rc.bench.fault()
        region.map(0, 1)
        rc.bench.resume(fault["token"])
        rc.bench.run()


def failures(rc: Rc) -> None:
    """A bad key, a flush, a timeout."""
    rc.write(9, 8)
    rc.bench.run()
    rc.b.modify(1, STATE=QpState.RESET)
    rc.a.modify(1 << 9 | 1 << 10, TIMEOUT=1, RETRY_CNT=1)
    rc.write(10, 8)
    rc.a.post_recv(11, rc.local.sge(8))
    rc.bench.run()
    rc.b.post_send(12, WrOpcode.SEND, (1, 8, 3))
    rc.bench.run()


def tags(bench: Bench) -> Tagged:
    """A match, an unexpected message, a count, a rendezvous with a page missing on each side, a deletion."""
    tagged = Tagged(bench, first=12)
    tagged.srq.post(10, tagged.remote.sge(4096, 6 * 4096))
    tagged.clients[0].post_recv(50, tagged.local.sge(64, 7 * 4096))
    for handle in range(4):
        tagged.srq.add(handle, handle | 1 << 63, tagged.remote.sge(8192), mask=1 << 63 | 7)
    for region in (tagged.local, tagged.remote):
        region.zap(1, 1)
    for message in (header(1 | 1 << 63) + bytes(2000), header(9), request(2 | 1 << 63, tagged.local, 8000)):
        tagged.send(message, at=6 * 4096)
        tagged.bench.step_until(lambda: tagged.resolve_faults() or not tagged.waits)
    tagged.srq.sync(1)
    tagged.srq.delete(3)
    while tagged.waits:
        tagged.bench.step_until(lambda: tagged.resolve_faults() or not tagged.waits)
    return tagged


def digest(rc: Rc) -> dict[str, str]:
    """Digest per table, per ring, of memory."""
    world, found = rc.bench.world, {}
    for name in TABLES:
        table = getattr(world, name.lower()).view(np.ndarray)
        used = table[: min(len(table), 1 << 16)] if name != "NODE" else table[:64]
        columns = [n for n in table.dtype.names if n not in ADDRESSES.get(name, ())]
        found[name] = hashlib.sha256(b"".join(used[n].tobytes() for n in columns)).hexdigest()
    for name, data in (("local", rc.local.data), ("remote", rc.remote.data), ("cq a", rc.a.cq.ring.bytes.tobytes()),
                       ("cq b", rc.b.cq.ring.bytes.tobytes())):  # fmt: skip
        found[name] = hashlib.sha256(data).hexdigest()
    found["events"] = str(int(world.control[0].ran))
    found["trace rows"] = str(int(world.control[0].trace_count))
    return found


def main() -> dict[str, str]:
    """Run it."""
    bench = Bench()
    bench.log()
    rc = connected(bench, MIN_RNR_TIMER=14)
    operations(rc)
    faults(rc)
    failures(rc)
    tagged = tags(bench)
    found = digest(rc)
    for name, data in (("tagged", tagged.remote.data), ("cq of tags", tagged.cq.ring.bytes.tobytes())):
        found[name] = hashlib.sha256(data).hexdigest()
    return found


if __name__ == "__main__":
    if not _jit.JIT:
        np.seterr(over="raise")
    json.dump({"jit": _jit.JIT, "state": main()}, sys.stdout)
