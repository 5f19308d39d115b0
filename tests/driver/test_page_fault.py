"""Page faults: what is faulted in, collision and retry, resume."""

from __future__ import annotations

import pytest

from nicemu.abi.command import Command
from nicemu.abi.rings import (
    RECV_WQE,
    SEND_HEADER_BYTES,
    SEND_WQE,
    SGE,
    SGE_BYTES,
    EqeType,
    Eqn,
    FaultSubtype,
    FaultType,
)  # fmt: skip
from nicemu.abi.verbs import Access, SendFlag
from nicemu.driver import cq, mr, qp, srq
from nicemu.driver.mr import Mr
from nicemu.driver.page_fault_work import MAX_ACTIVE
from nicemu.driver.qp import Qp
from nicemu.timeline import Steps
from nicemu.uverbs.messages import Capabilities
from tests.driver.bench import Bench
from tests.driver.fake_device import INTERRUPT_NS

ODP = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ | Access.ON_DEMAND
BASE = 0x100000
TOKEN = 17
DISCIPLINES = ("v6.12", "v3.7")


@pytest.fixture(params=DISCIPLINES)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def make_qp(bench: Bench, region: Mr) -> Qp:
    queue = bench.call(cq.create(region.pd.context, 10, 0, None))
    made: Qp = bench.call(qp.create(region.pd, 2, (queue, queue), Capabilities(4, 4, 3, 3, 0), 0))
    return made


def wqe_fault(bench: Bench, qpn: int, kind: FaultType, counter: int, committed: int = 0) -> None:
    words = (qpn | kind << 32, TOKEN, 0, 0, committed, counter)
    bench.device.post(Eqn.PAGE_FAULT, EqeType.PAGE_FAULT, FaultSubtype.WQE, words)


def test_rdma_fault_maps_the_operation_and_resumes(bench: Bench) -> None:
    region = bench.region(ODP, pages=8)
    bench.device.rdma_fault(TOKEN, region.key, BASE + 4096 + 100, 2 * 4096)
    bench.run()
    assert sorted(bench.frames_of(region)) == [1, 2, 3]
    assert bench.device.resumed == [(TOKEN, 0)]
    assert bench.mm.faulted == [(BASE + 4096, 3, True)]
    assert dict(region.counters.items()) == {
        "page_faults": 3, "page_invalidations": 0, "page_prefetch": 0, "page_faults_handled": 1,
        "page_invalidations_handled": 0,
    }  # fmt: skip


def test_the_firmware_bounds_the_pages(bench: Bench) -> None:
    region = bench.region(ODP, pages=8)
    bench.device.rdma_fault(TOKEN, region.key, BASE + 10, 8 * 4096 - 10, pages=2)
    bench.run()
    assert sorted(bench.frames_of(region)) == [0, 1]


def test_an_unbounded_rdma_fault_stops_at_1024_pages(bench: Bench) -> None:
    region = bench.region(ODP, pages=1100)
    bench.device.rdma_fault(TOKEN, region.key, BASE, 1100 * 4096)
    bench.run()
    assert len(bench.frames_of(region)) == 1024


def test_what_is_committed_is_not_subtracted_again(bench: Bench) -> None:
    region = bench.region(ODP, pages=8)
    bench.device.rdma_fault(TOKEN, region.key, BASE + 3 * 4096, 5 * 4096, committed=3 * 4096)
    bench.run()
    assert sorted(bench.frames_of(region)) == [3, 4, 5, 6, 7]


def test_a_packet_that_crosses_into_the_missing_page_does_not_ask_beyond_the_region(bench: Bench) -> None:
    """The operation stands 100 bytes before the missing page, so that many bytes too many are asked for."""
    region = bench.region(ODP, pages=2)
    bench.device.rdma_fault(TOKEN, region.key, BASE + 4096, 4096 + 100)
    bench.run()
    assert sorted(bench.frames_of(region)) == [1] and bench.device.resumed == [(TOKEN, 0)]


def test_iova_is_not_the_address(bench: Bench) -> None:
    region = bench.region(ODP, pages=4, address=BASE, iova=0x7000)
    bench.device.rdma_fault(TOKEN, region.key, 0x8000, 10)
    bench.run()
    assert bench.mm.faulted == [(BASE + 0x1000, 1, True)] and sorted(bench.frames_of(region)) == [1]


def test_a_read_only_region_is_faulted_for_read_and_mapped_read_only(bench: Bench) -> None:
    region = bench.region(Access.REMOTE_READ | Access.ON_DEMAND)
    bench.device.rdma_fault(TOKEN, region.key, BASE, 10)
    bench.run()
    assert bench.mm.faulted == [(BASE, 1, False)]
    assert [entry & 3 for entry in bench.device.mkeys[region.index].mtt.values()] == [1]


@pytest.mark.parametrize("kind", [FaultType.REQUESTER_SEND, FaultType.REQUESTER_READ])
def test_wqe_fault_maps_all_that_is_left_of_the_wqe(bench: Bench, kind: FaultType) -> None:
    region = bench.region(ODP, pages=16)
    pair = make_qp(bench, region)
    at = 1 * pair.send_stride  # counter 5 of a ring of 4
    SEND_WQE.pack_into(pair.send_ring.view, at, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0)
    for i, (address, length) in enumerate(((BASE, 4096), (BASE + 4 * 4096, 5000), (BASE + 8 * 4096, 1))):
        SGE.pack_into(pair.send_ring.view, at + SEND_HEADER_BYTES + i * SGE_BYTES, address, length, region.key)
    wqe_fault(bench, pair.number, kind, 5, committed=4096 + 4096)
    bench.run()
    assert sorted(bench.frames_of(region)) == [5, 8]
    assert bench.device.resumed == [(TOKEN, 0)]


@pytest.mark.parametrize("committed", [0, 1])
@pytest.mark.parametrize("empty", [BASE + 2 * 4096, BASE + 3 * 4096 + 100, 1 << 40])
def test_a_segment_without_bytes_needs_nothing(bench: Bench, empty: int, committed: int) -> None:
    """Wherever it points."""
    region = bench.region(ODP, pages=4)
    pair = make_qp(bench, region)
    SEND_WQE.pack_into(pair.send_ring.view, 0, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0)
    for i, (address, length) in enumerate(((BASE, 10), (empty, 0), (BASE + 4096, 10))):
        SGE.pack_into(pair.send_ring.view, SEND_HEADER_BYTES + i * SGE_BYTES, address, length, region.key)
    wqe_fault(bench, pair.number, FaultType.REQUESTER_SEND, 0, committed)
    bench.run()
    assert sorted(bench.frames_of(region)) == [0, 1] and bench.device.resumed == [(TOKEN, 0)]


def test_receive_wqe_fault_reads_the_receive_ring(bench: Bench) -> None:
    region = bench.region(ODP, pages=4)
    pair = make_qp(bench, region)
    RECV_WQE.pack_into(pair.recv_ring.view, 0, 1, 1, 0)
    SGE.pack_into(pair.recv_ring.view, 16, BASE, 10, region.key)
    wqe_fault(bench, pair.number, FaultType.RESPONDER_RECV, 0)
    bench.run()
    assert sorted(bench.frames_of(region)) == [0]


def test_inline_and_pinned_segments_need_nothing(bench: Bench) -> None:
    region = bench.region(ODP)
    pinned = bench.call(mr.register(region.pd, BASE, 4096, Access.LOCAL_WRITE, BASE))
    pair = make_qp(bench, region)
    SEND_WQE.pack_into(pair.send_ring.view, 0, 1, 2, SendFlag.INLINE, 2, 0, 0, 0, 32, 0, 0, 0, 0)
    SEND_WQE.pack_into(pair.send_ring.view, pair.send_stride, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    SGE.pack_into(pair.send_ring.view, pair.send_stride + SEND_HEADER_BYTES, BASE, 10, pinned.key)
    wqe_fault(bench, pair.number, FaultType.REQUESTER_SEND, 0)
    wqe_fault(bench, pair.number, FaultType.REQUESTER_SEND, 1)
    bench.run()
    assert bench.device.resumed == [(TOKEN, 0)] * 2 and bench.mm.faulted == []


def test_what_cannot_be_had_resumes_with_an_error(bench: Bench) -> None:
    region = bench.region(ODP)
    bench.mm.absent.add(BASE + 4096 >> 12)
    bench.device.rdma_fault(TOKEN, region.key, BASE, 8192)  # a hole in the address space
    bench.device.rdma_fault(TOKEN + 1, region.key + 1, BASE, 10)  # a stale key
    bench.device.rdma_fault(TOKEN + 2, region.key, BASE + 4 * 4096, 2)  # beyond the region
    bench.run()
    assert sorted(bench.device.resumed) == [(TOKEN, 1), (TOKEN + 1, 1), (TOKEN + 2, 1)]
    assert bench.frames_of(region) == {} and bench.driver.counters.num_failed_resolutions == 3


def test_a_fault_of_a_destroyed_qp_is_resumed(bench: Bench) -> None:
    wqe_fault(bench, 3, FaultType.REQUESTER_SEND, 0)
    bench.run()
    assert bench.device.resumed == [(TOKEN, 0)]


def test_an_invalidation_during_the_fault_makes_it_start_over(bench: Bench) -> None:
    """The frame that fault_in saw is gone by the time the mutex is held: it must not reach the device."""
    region = bench.region(ODP)

    def collide() -> Steps[None]:
        yield from bench.mm.zap(BASE, BASE + 4096)

    bench.mm.during_fault = collide
    bench.device.rdma_fault(TOKEN, region.key, BASE, 10)
    bench.run()
    assert len(bench.mm.faulted) == 2
    assert bench.frames_of(region) == {0: bench.mm.table[BASE >> 12]}
    assert bench.driver.counters.invalidations_faults_contentions == 1
    assert bench.driver.stages.faults[-1]["retries"] == 1


def test_an_invalidation_elsewhere_does_not(bench: Bench) -> None:
    region = bench.region(ODP)

    def elsewhere() -> Steps[None]:
        yield from bench.mm.zap(0x900000, 0x901000)

    bench.mm.during_fault = elsewhere
    bench.device.rdma_fault(TOKEN, region.key, BASE, 10)
    bench.run()
    assert len(bench.mm.faulted) == 1


def test_a_fault_waits_for_an_invalidation_in_progress(bench: Bench) -> None:
    region = bench.region(ODP)
    bench.device.rdma_fault(TOKEN, region.key, BASE, 10)
    bench.run()
    bench.device.zap_ns = 1_000_000
    zap = bench.spawn(bench.mm.zap(BASE, BASE + 4096))
    bench.timeline.advance(lambda: False, bench.now + 20_000)
    assert not zap.finished
    bench.device.rdma_fault(TOKEN + 1, region.key, BASE, 10)
    bench.run()
    fault, invalidation = bench.driver.stages.faults[-1], bench.driver.stages.invalidations[-1]
    assert fault["driver"] < invalidation["returned"] <= fault["mm"]
    assert bench.frames_of(region) == {0: bench.mm.table[BASE >> 12]}


def test_at_most_32_run_at_a_time(bench: Bench) -> None:
    region = bench.region(ODP, pages=40)
    for token in range(40):
        bench.device.rdma_fault(token, region.key, BASE + token * 4096, 10)
    work = bench.driver.devices[0].faults
    bench.timeline.advance(lambda: work.active == MAX_ACTIVE)
    assert len(work.waiting) == 8
    bench.run()
    assert sorted(token for token, _ in bench.device.resumed) == list(range(40)) and work.active == 0


def test_deregistration_waits_for_the_faults_that_run(bench: Bench) -> None:
    region = bench.region(ODP)
    bench.mm.fault_ns = 500_000
    bench.device.rdma_fault(TOKEN, region.key, BASE, 10)
    bench.timeline.advance(lambda: bool(bench.mm.faulted))
    bench.call(mr.deregister(region))
    commands = [opcode for opcode, _ in bench.device.log]
    assert commands.index(Command.UPDATE_MTT) < commands.index(Command.DESTROY_MKEY)
    bench.run()
    assert bench.device.resumed == [(TOKEN, 0)]


def test_the_stages_of_a_fault_are_in_order(bench: Bench) -> None:
    region = bench.region(ODP)
    bench.device.rdma_fault(TOKEN, region.key, BASE, 10)
    posted = bench.now
    bench.run()
    stages = bench.driver.stages.faults[-1]
    names = ("detected", "interrupt", "driver", "mm", "mm_done", "update", "update_done", "resume", "resumed")
    times = [stages[name] for name in names]
    assert times == sorted(times)
    assert (times[0], times[1]) == (posted, posted + INTERRUPT_NS)
    assert (stages["mr"], stages["pages"], stages["error"]) == (1, 1, 0)


def test_a_fault_of_an_srqs_wqe_maps_the_missing_page(bench: Bench) -> None:
    """The device has a copy of that WQE; its slot in the ring may hold another one already."""
    region = bench.region(ODP, pages=4)
    shared = bench.call(srq.create(region.pd, 0, (4, 3)))
    queue = bench.call(cq.create(region.pd.context, 10, 0, None))
    pair = bench.call(qp.create(region.pd, 2, (queue, queue, shared), Capabilities(4, 0, 1, 0, 0), 0))
    words = (pair.number | FaultType.RESPONDER_RECV << 32, TOKEN, region.key, BASE + 2 * 4096 + 8, 0, 0)
    bench.device.post(Eqn.PAGE_FAULT, EqeType.PAGE_FAULT, FaultSubtype.WQE, words)
    bench.run()
    assert sorted(bench.frames_of(region)) == [2] and bench.device.resumed == [(TOKEN, 0)]
