"""A NIC over huge pages: 2 MiB translations of pinned memory, page faults and invalidations of ODP memory."""

import struct

import pytest

from nicemu.abi import rings
from nicemu.abi.rings import SEND_WQE, SGE, Doorbell
from nicemu.abi.verbs import Access, WrOpcode
from nicemu.config import load_config
from nicemu.lab import Lab
from nicemu.mm.page_table import HUGE
from nicemu.uverbs import memory_messages as mem
from tests.lab.pair import REMOTE, connected_pair

PAGE, HUGE_SIZE, MAP_HUGETLB = 4096, 1 << 21, 0x40022
ODP = REMOTE | Access.ON_DEMAND
HOST = {"name": "huge", "ram_pages": 8192, "swap_pages": 8192, "transparent_hugepage": "always", "nr_hugepages_2m": 2}


@pytest.fixture(params=["v3.7", "v6.12"])
def lab(request):
    """A lab with THP and a hugetlb pool."""
    lab = Lab(load_config(None, {"memory": "model", "discipline": request.param, "host": HOST}))
    lab.timeline._others_may_act = lambda: False
    yield lab
    lab.close()


@pytest.fixture(params=["thp", "hugetlb"])
def memory(request, lab):
    """Address of 2 MiB that get a huge page when they are touched."""
    process = lab.endpoint.process
    if request.param == "thp":
        return process.posix_memalign(HUGE_SIZE, HUGE_SIZE)
    return process.mmap(HUGE_SIZE, 3, MAP_HUGETLB)


def region(lab, address, access):
    return lab.endpoint.execute(mem.RegMr(1, address, HUGE_SIZE, int(access), address))


def write(lab, pair, number, source, target):
    """RDMA WRITE of 64 bytes between two places, (address, region) each, as WR ``number``."""
    _, (qp, _), *_ = pair
    (address, local), (remote, peer) = source, target
    at = number * rings.send_stride(2, 0)
    SEND_WQE.pack_into(qp.send_ring, at, number, WrOpcode.RDMA_WRITE, 2, 1, 0, remote, peer.rkey, 0, 0, 0, 0, 0)
    SGE.pack_into(qp.send_ring, at + rings.SEND_HEADER_BYTES, address, 64, local.lkey)
    struct.pack_into("<q", qp.record, rings.DB_SEND, number + 1)
    lab.endpoint.ring_doorbell(0, Doorbell.SEND, qp.number, number)
    lab.timeline.pass_time(5_000_000)


def test_a_pinned_region_takes_2_mib_translations(lab, memory):
    connected_pair(lab)
    response = region(lab, memory, REMOTE)
    made = [row for row in lab.world.mkey if row.valid and row.length == HUGE_SIZE]
    assert [row.page_shift for row in made] == [21] and response.handle


def test_a_device_fault_maps_a_huge_page_and_an_invalidation_takes_all_of_it(lab, memory):
    pair = connected_pair(lab, ODP)
    local, odp = (pair[2], pair[3]), region(lab, memory, ODP)
    process, mm = lab.endpoint.process, lab.process.mm
    process.write(local[0], b"one" + bytes(61))
    write(lab, pair, 0, local, (memory + 5 * PAGE, odp))
    assert mm.page_table.get(memory // PAGE + 511) & HUGE
    assert process.read(memory + 5 * PAGE, 3) == b"one"
    process.mprotect(memory, HUGE_SIZE, 1)
    process.mprotect(memory, HUGE_SIZE, 3)
    process.write(local[0], b"two" + bytes(61))
    write(lab, pair, 1, local, (memory + 5 * PAGE, odp))
    assert process.read(memory + 5 * PAGE, 3) == b"two"


def test_after_fork_the_device_writes_to_the_parents_copy(lab):
    memory = lab.endpoint.process.posix_memalign(HUGE_SIZE, HUGE_SIZE)
    pair = connected_pair(lab, ODP)
    local, odp = (pair[2], pair[3]), region(lab, memory, ODP)
    process = lab.endpoint.process
    process.write(local[0], b"one" + bytes(61))
    write(lab, pair, 0, local, (memory + 5 * PAGE, odp))
    child = lab.timeline.call(lab.process.fork(), "fork")
    process.write(local[0], b"two" + bytes(61))
    write(lab, pair, 1, local, (memory + 5 * PAGE, odp))
    assert process.read(memory + 5 * PAGE, 3) == b"two"
    assert lab.timeline.call(child.read(memory + 5 * PAGE, 3), "read") == b"one"
