"""Fork with memory that a NIC writes: the child must not see what arrives afterwards (simulated RAM)."""

import struct

from nicemu.abi import rings
from nicemu.abi.rings import SEND_WQE, SGE, Doorbell
from nicemu.abi.verbs import Access, WrOpcode
from nicemu.config import load_config
from nicemu.lab import Lab
from tests.lab.pair import REMOTE, connected_pair

BEFORE, AFTER = b"before the fork " * 4, b"after the fork! " * 4


def rdma_write(lab, qp, index, address, mr):
    """WRITE the first 64 bytes of the region to its second page."""
    at = index * qp.send_stride
    SEND_WQE.pack_into(qp.send_ring, at, index, WrOpcode.RDMA_WRITE, 2, 1, 0, address + 4096, mr.rkey, 0, 0, 0, 0, 0)
    SGE.pack_into(qp.send_ring, at + rings.SEND_HEADER_BYTES, address, 64, mr.lkey)
    struct.pack_into("<q", qp.record, rings.DB_SEND, index + 1)
    lab.endpoint.ring_doorbell(0, Doorbell.SEND, qp.number, 0)
    lab.timeline.pass_time(5_000_000)


def child_sees(mutants=(), sanitizer=True):
    """(what parent and child have after a write behind a fork, violations)."""
    lab = Lab(load_config(None, {"memory": "model", "mutants": list(mutants), "sanitizer": sanitizer}))
    _, qps, address, mr = connected_pair(lab, REMOTE | Access.ON_DEMAND)
    process = lab.endpoint.process
    for index, data in enumerate((BEFORE, AFTER)):
        process.write(address, data)
        rdma_write(lab, qps[0], index, address, mr)
        if index == 0:
            child = process.fork()
    parent_bytes = process.read(address + 4096, 64)
    child_bytes = lab.timeline.call(child.read(address + 4096, 64), "read of the child")
    found = lab.violations
    lab.close()
    return parent_bytes, child_bytes, found


def test_child_keeps_what_it_had():
    assert child_sees() == (AFTER, BEFORE, 0)


def test_driver_that_ignores_fork_is_caught_by_the_sanitizer():
    assert child_sees(["ignore_fork_protect"])[2] > 0


def test_driver_that_ignores_fork_leaks_into_the_child():
    _, child_bytes, found = child_sees(["ignore_fork_protect"], sanitizer=False)
    assert child_bytes == AFTER
    assert found == 0
