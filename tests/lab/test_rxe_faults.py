"""On-demand paging as soft-RoCE does it, side by side with the default device: faults where they happen, and the defect
of its copies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.wr import SGE, RecvWR
from nicemu.uverbs import session
from tests.lab.worlds import ACCESS, ON_DEMAND, Ends, errno_of, in_both, in_world

PAGE = 4096
SEND, WRITE, READ = e.IBV_WR_SEND, e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_READ
ADD, SUCCESS = e.IBV_WR_ATOMIC_FETCH_AND_ADD, [(1, "SUCCESS")]
MENDED = """nic:
  like: rxe
  active_mtu: 4096
  defects: []
firmware: rxe
"""


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab of rxe without the defect of its on-demand copies."""
    path = tmp_path_factory.mktemp("labs") / "mended.yaml"
    path.write_text(MENDED)
    yield path


def on_demand(ends: Ends, pages: int = 8) -> MR:
    return MR(ends.pd, pages * PAGE, ACCESS | ON_DEMAND)


@pytest.mark.parametrize("opcode", [SEND, WRITE, READ, ADD])
def test_a_fault_at_the_responder_sends_no_rnr_nak(opcode: int) -> None:
    """The peer sees that it takes longer, and the request is not sent twice."""

    def scenario(ends: Ends) -> object:
        region = on_demand(ends)
        a, b = ends.pair(timeout=20, rnr_retry=7)
        b.post_recv(receive(region))
        ends.post(a, opcode, ends.out(8 if opcode == ADD else 4 * PAGE), **remote(ends, region))
        assert ends.statuses(ends.near) == SUCCESS
        nic = ends.nic
        return bool(nic.page_faults), bool(nic.rnr_naks_sent), bool(nic.retransmits)

    assert in_both(scenario) == ((True, True, True), (True, False, False))


def receive(region: MR, offset: int = 0) -> RecvWR:
    return RecvWR(wr_id=100, num_sge=1, sg=[SGE(region.buf + offset, 30_000, region.lkey)])


def remote(ends: Ends, region: MR, offset: int = 0) -> dict[str, int]:
    """The region as what a request is about."""
    return {"rkey": region.rkey, "at": region.buf + offset - ends.target.buf}


def test_a_fault_of_read_data_at_the_requester_asks_for_nothing_again() -> None:
    """The responses wait with the requester."""

    def scenario(ends: Ends) -> object:
        region = on_demand(ends)
        a, _b = ends.pair(timeout=20)
        ends.post(a, READ, SGE(region.buf, 8 * PAGE, region.lkey))
        assert ends.statuses(ends.near) == SUCCESS
        return bool(ends.nic.page_faults), bool(ends.nic.retransmits), bool(ends.nic.duplicates)

    assert in_both(scenario) == ((True, True, True), (True, False, False))


def test_a_fault_takes_microseconds() -> None:
    """No interrupt and no work queue between the miss and the page."""

    def scenario(ends: Ends) -> int:
        region = on_demand(ends)
        a, _b = ends.pair(timeout=20, rnr_retry=7)
        before = int(session.current().world.now)
        ends.post(a, WRITE, ends.out(64), **remote(ends, region))
        while not ends.near.poll(1)[0]:
            pass
        return int(session.current().world.now) - before

    default, rxe = in_both(scenario)
    assert rxe < 20_000 < 100_000 < default


def test_everything_arrives_through_faults_on_both_sides(mended: Path) -> None:
    """Requests behind a faulting one wait in order; the bytes are right when the defect is mended."""

    def scenario(ends: Ends) -> None:
        left, right = on_demand(ends, 16), on_demand(ends, 16)
        a, b = ends.pair(timeout=20)
        pattern = bytes(range(256)) * (16 * PAGE // 256)
        left.write(pattern, len(pattern))
        for round_ in range(4):
            offset = 1000 * round_
            b.post_recv(receive(right, offset))
            ends.post(a, SEND, SGE(left.buf + offset, 30_000, left.lkey))
            assert ends.statuses(ends.near) == SUCCESS
            assert right.read(30_000, offset) == pattern[offset : offset + 30_000]
            ends.post(a, READ, SGE(left.buf, 100, left.lkey), **remote(ends, right, offset))
            assert ends.statuses(ends.near) == SUCCESS
            assert left.read(100, 0) == pattern[offset : offset + 100]
            left.write(pattern, len(pattern))

    in_world(mended, scenario)


def test_data_that_does_not_begin_with_a_page_lands_at_its_begin() -> None:
    """rxe's defect, in on-demand memory only; completions say nothing of it."""

    def scenario(ends: Ends) -> object:
        region = on_demand(ends)
        a, _b = ends.pair(timeout=20, rnr_retry=7)
        ends.source.write(b"here", 4)
        ends.post(a, WRITE, ends.out(4), **remote(ends, region, 100))
        assert ends.statuses(ends.near) == SUCCESS
        return region.read(4, 0), region.read(4, 100)

    assert in_both(scenario) == ((bytes(4), b"here"), (b"here", bytes(4)))


def test_atomics_use_the_offset() -> None:
    def scenario(ends: Ends) -> object:
        region = on_demand(ends)
        a, _b = ends.pair(timeout=20, rnr_retry=7)
        ends.post(a, ADD, ends.out(8), **remote(ends, region, 64))
        ends.statuses(ends.near)
        return region.read(8, 64), region.read(8, 0)

    expected = (1).to_bytes(8, "little"), bytes(8)
    assert in_both(scenario) == (expected, expected)


def test_a_fault_that_cannot_be_resolved() -> None:
    """Memory that is not there: the same error in both, and the QP of the model does not hang."""

    def scenario(ends: Ends) -> object:
        region = MR(ends.pd, 4 * PAGE, ACCESS | ON_DEMAND, address=0x10000)
        a, b = ends.pair(timeout=20, rnr_retry=7)
        ends.post(a, WRITE, ends.out(64), rkey=region.rkey, at=0x10000 - ends.target.buf)
        return ends.statuses(ends.near), ends.state(b)

    expected = [(1, "REM_ACCESS_ERR")], "ERR"
    assert in_both(scenario) == (expected, expected)


def test_the_whole_address_space_is_not_to_be_had() -> None:
    def scenario(ends: Ends) -> str:
        return errno_of(MR, ends.pd, 0, ACCESS | ON_DEMAND, implicit=True)

    assert in_both(scenario) == ("ok", "EINVAL")
