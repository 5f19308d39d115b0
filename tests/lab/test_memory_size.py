"""What QPs and mapped pages cost: committed bytes of tables, exact where RSS depends on what the allocator keeps."""

from __future__ import annotations

import numpy as np
import pytest

from nicemu.abi.verbs import Access
from nicemu.config import load_config
from nicemu.lab import Lab
from nicemu.tables.records import Slot
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from tests.lab.pair import connected_pair

PAGE, MADV_POPULATE_WRITE = 4096, 23
ODP = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.ON_DEMAND
PRESENT, OURS = 1 << 63, 1 << 56
"""Bits of /proc/self/pagemap: a page is there, and nobody else's, which the zero page is."""


def committed(array: np.ndarray) -> int:
    """Bytes of a table that have memory of their own."""
    first = array.ctypes.data // PAGE
    count = -(-(array.ctypes.data + array.nbytes) // PAGE) - first
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        pagemap.seek(8 * first)
        entries = np.frombuffer(pagemap.read(8 * count), np.uint64)
    return int(np.count_nonzero((entries & np.uint64(PRESENT)) & (entries & np.uint64(OURS)) << np.uint64(7))) * PAGE


@pytest.fixture
def lab():
    lab = Lab(load_config(None, {"memory": "model"}))
    yield lab
    lab.close()


def test_a_connected_qp_commits_only_its_row_and_its_address_vector(lab):
    """What READs, page faults, firmware and SRQs need is committed when they are."""
    connected_pair(lab)
    rows = {slot: committed(lab.world.tables[slot]) for slot in (Slot.QP, Slot.AV)}
    assert 0 < rows[Slot.QP] <= PAGE and 0 < rows[Slot.AV] <= PAGE
    for slot in (Slot.RESOURCE, Slot.FAULT, Slot.QP_STATE, Slot.SRQ_WQE, Slot.HASH_KEY, Slot.SQ_ENTRY):
        assert committed(lab.world.tables[slot]) == 0, slot.name


def test_a_qp_that_was_destroyed_has_not_committed_more(lab):
    _, qps, *_ = connected_pair(lab)
    for qp in qps:
        lab.endpoint.execute(m.DestroyQp(qp.handle))
    assert not any(committed(lab.world.tables[slot]) for slot in (Slot.RESOURCE, Slot.FAULT, Slot.QP_STATE))


def test_the_rows_of_a_qp_are_below_a_kibibyte(lab):
    assert lab.world.qp.dtype.itemsize + lab.world.av.dtype.itemsize <= 1024


def test_a_mapped_page_costs_less_than_64_bytes(lab):
    """PTE and MTT are 8 each; the frame has its reverse map, and the LRU list its place."""
    pages, run = 1 << 13, lab.endpoint.execute
    address = lab.endpoint.process.mmap(pages * PAGE, memory="model")
    lab.endpoint.process.madvise(address, pages * PAGE, MADV_POPULATE_WRITE)
    region = run(mem.RegMr(run(m.AllocPd(run(m.OpenDevice("nicemu0")))), address, pages * PAGE, int(ODP), address))
    assert lab.driver.mrs.get(region.handle).umem.mapped == pages
    tables = [lab.world.node, lab.world.frame, lab.world.frame_stamp]
    lists = [
        lab.host.reclaim.lru.inactive._places,
        np.asarray(lab.host.reclaim.lru._referenced),
        lab.host.pages.all_pins,
    ]
    leaves = committed(lab.world.node)
    assert leaves <= 24 * pages
    assert sum(committed(table) for table in (*tables, *lists)) <= 64 * pages - pages  # a byte in the page list
