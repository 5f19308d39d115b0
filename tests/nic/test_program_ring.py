"""Rings and doorbell records in memory of the program (``ibv_alloc_parent_domain(3)``): the device works from there, by
the pages that are held, and memory that is gone reads as ones."""

import ctypes

import pytest

from nicemu.abi.command import Command, RingOwner, Status
from nicemu.abi.verbs import QpState, WcStatus, WrOpcode
from nicemu.tables.records import FrameKind
from tests.nic.test_program_memory import Mapping
from tests.nic.testbench import ALL, Bench, Cq, Mr, Qp, Ring, Srq

PAGE = 4096
PENDING = 5_000_000


class ProgramRing(Ring):
    """A ring in a mapping of the process."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.view = memoryview((ctypes.c_char * size).from_address(address)).cast("B")


class Home:
    """Memory of the program, and the device's key for it."""

    def __init__(self, bench: Bench, size: int, offset: int = 0) -> None:
        pages = (offset + size + PAGE - 1) // PAGE
        self.bench, self.mapping = bench, Mapping(pages)
        self.region: Mr = bench._place(pages, ALL, with_frames=False)
        bench.command(Command.CREATE_MKEY, self.region.index, self.region.key, 0, 0, size, ALL, 0, 0, offset)
        base = self.mapping.address
        self.region.frames = [bench.frames.allocate(FrameKind.PROGRAM, base + page * PAGE) for page in range(pages)]
        self.region.map()
        self.address = base + offset

    def ring(self, offset: int, size: int) -> ProgramRing:
        return ProgramRing(self.address + offset, size)

    def take_away(self) -> None:
        self.mapping.unmap()


def place(bench: Bench, owner: RingOwner, number: int, ring: Home | None, record: Home | None, **options) -> None:
    keys = [home.region.index if home else 0 for home in (ring, record)]
    bench.command(Command.PLACE_RINGS, int(owner), number, *keys, **options)


class Placed:
    """``a`` and ``b``, connected; everything of ``b``, and of its CQ, lies in memory of the program."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.a, self.b = Qp(bench, 2, Cq(bench, 1)), Qp(bench, 3, Cq(bench, 2))
        b, cq = self.b, self.b.cq
        received, sent = len(b.recv.view), len(b.send.view)
        self.ring, self.record = Home(bench, received + sent), Home(bench, 16, offset=PAGE - 8)
        place(bench, RingOwner.QP, b.number, self.ring, self.record)
        self.copies = b.recv, b.send, b.record, cq.ring, cq.record  # the device works there
        b.recv, b.send, b.record = self.ring.ring(0, received), self.ring.ring(received, sent), self.record.ring(0, 16)
        self.cq_ring, self.cq_record = Home(bench, len(cq.ring.view), offset=PAGE - 32), Home(bench, 16)
        place(bench, RingOwner.CQ, cq.number, self.cq_ring, self.cq_record)
        cq.ring, cq.record = self.cq_ring.ring(0, len(cq.ring.view)), self.cq_record.ring(0, 16)
        self.a.connect(b)
        b.connect(self.a)
        self.local, self.remote = bench.mr(4), bench.mr(4)
        self.local.fill(1)
        self.remote.fill(2)

    def send(self, qp: Qp, wr_id: int, **options) -> None:
        qp.post_send(wr_id, WrOpcode.SEND, self.local.sge(100), **options)


@pytest.fixture
def placed() -> Placed:
    return Placed(Bench())


def test_receives_are_taken_from_the_programs_memory_and_completed_into_it(placed):
    for wr_id in range(3):
        placed.b.post_recv(10 + wr_id, placed.remote.sge(100, 100 * wr_id))
        placed.send(placed.a, wr_id)
    placed.bench.run()
    assert placed.b.statuses() == [(10, 0), (11, 0), (12, 0)]
    assert placed.a.statuses() == [(0, 0), (1, 0), (2, 0)]
    assert placed.remote.data[:100] == placed.local.data[:100]


def test_sends_are_fetched_from_the_programs_memory_round_and_round(placed):
    for wr_id in range(150):
        placed.a.post_recv(wr_id, placed.remote.sge(100))
        placed.send(placed.b, wr_id)
        placed.bench.run()
        assert placed.a.statuses() == [(wr_id, 0)] and placed.b.statuses() == [(wr_id, 0)]


def test_inline_data_travels_from_the_programs_memory(placed):
    placed.a.post_recv(1, placed.remote.sge(100))
    placed.b.post_send(1, WrOpcode.SEND, inline=b"from the ring")
    placed.bench.run()
    assert placed.remote.data[:13] == b"from the ring"


def test_a_wqe_may_change_until_its_doorbell_and_not_after_it_was_fetched(placed):
    placed.a.post_recv(1, placed.remote.sge(100))
    placed.send(placed.b, 7)
    placed.bench.run()
    placed.b.send.view[:8] = bytes(8)
    placed.bench.run_for(PENDING)
    assert placed.b.statuses() == [(7, 0)]


def test_err_flushes_what_is_posted_there(placed):
    for wr_id in range(3):
        placed.b.post_recv(wr_id, placed.remote.sge(100))
    placed.b.modify(1, STATE=QpState.ERR)
    placed.send(placed.b, 9)
    placed.bench.run()
    assert sorted(placed.b.statuses()) == [(wr_id, WcStatus.WR_FLUSH_ERR) for wr_id in (0, 1, 2, 9)]


def test_memory_taken_away_is_a_failed_wqe_and_no_crash(placed):
    placed.b.post_recv(1, placed.remote.sge(100))
    placed.ring.take_away()
    placed.send(placed.a, 1)
    placed.bench.run()
    assert placed.a.statuses() == [(1, WcStatus.REM_OP_ERR)]


def test_a_record_taken_away_posts_nothing(placed):
    placed.b.post_recv(1, placed.remote.sge(100))
    placed.record.take_away()
    placed.send(placed.a, 1)
    placed.bench.run_for(PENDING)
    assert placed.a.statuses() == []


def test_completions_into_memory_taken_away_are_lost(placed):
    placed.b.post_recv(1, placed.remote.sge(100))
    placed.cq_ring.take_away()
    placed.cq_record.take_away()
    placed.send(placed.a, 1)
    placed.bench.run()
    assert placed.a.statuses() == [(1, 0)]


def test_an_srq_gives_from_and_counts_in_the_programs_memory():
    bench = Bench()
    srq = Srq(bench, 1)
    ring, record = Home(bench, len(srq.ring.view)), Home(bench, 16)
    place(bench, RingOwner.SRQ, 1, ring, record)
    copies = srq.ring, srq.record
    srq.ring, srq.record = ring.ring(0, len(srq.ring.view)), record.ring(0, 16)
    client, server = Qp(bench, 2, Cq(bench, 1)), Qp(bench, 3, Cq(bench, 2), srq=srq)
    client.connect(server)
    server.connect(client)
    mr = bench.mr(4)
    for wr_id in range(100):
        srq.post(wr_id, mr.sge(100, 4096))
        client.post_send(wr_id, WrOpcode.SEND, mr.sge(100))
        bench.run()
        assert server.statuses() == [(wr_id, 0)] and srq.free == srq.slots
    assert srq.record.word(8) == copies[1].word(8) == 100
    bench.command(Command.RESIZE_SRQ, 1, Ring(1 << 16).address, 128, expect=Status.BAD_PARAM)


def test_a_cq_there_is_not_resized(placed):
    number = placed.b.cq.number
    placed.bench.command(Command.RESIZE_CQ, number, Ring(1 << 16).address, 512, 300, expect=Status.BAD_PARAM)


@pytest.mark.parametrize(
    "owner, number, ring", [(0, 99_999_999, 1), (3, 1, 1), (1, -1, 1), (0, 2, -1), (0, 2, 1 << 40)]
)
def test_bad_commands_change_nothing(placed, owner, number, ring):
    placed.bench.submit(Command.PLACE_RINGS, owner, number, ring, 0)
    assert placed.bench.completion() in (Status.BAD_PARAM, Status.BAD_RESOURCE)


def test_nobody_reaches_the_memory_by_its_key(placed):
    target = placed.ring.region
    placed.a.post_send(1, WrOpcode.RDMA_WRITE, placed.local.sge(8), remote=0, rkey=target.key)
    placed.bench.run()
    assert placed.a.statuses() == [(1, WcStatus.REM_ACCESS_ERR)]
