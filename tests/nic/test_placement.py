"""FLUSH and ATOMIC WRITE (memory placement extensions; Linux rxe_resp.c process_flush, atomic_write_reply)."""

import pytest

from nicemu.abi.verbs import Access, QpState, WcOpcode, WcStatus
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import connected
from tests.nic.packets import DROP, Wire
from tests.nic.testbench import ALL, WrOpcode

GLOBAL, PERSISTENT = 1, 2
RANGE, REGION = 0, 1
RIGHTS = ALL | Access.FLUSH_GLOBAL | Access.FLUSH_PERSISTENT


@pytest.fixture
def placed(bench):
    """Connected RC QPs; the remote region may be flushed both ways."""
    rc = connected(bench, ACCESS=RIGHTS)
    rc.remote = bench.mr(4, access=RIGHTS)
    rc.remote.fill(2)
    return rc


def flush(rc, wr_id, kind=GLOBAL, level=RANGE, length=100, at=0, **options):
    """A FLUSH of ``remote[at:][:length]``."""
    rc.a.post_send(wr_id, WrOpcode.FLUSH, remote=rc.remote.va + at, rkey=rc.remote.key, compare=kind | level << 8,
                   swap=length, **options)  # fmt: skip


def atomic_write(rc, wr_id, at=64, **options):
    """Eight bytes of local to ``remote[at:]``."""
    options.setdefault("inline", None)
    rc.a.post_send(wr_id, WrOpcode.ATOMIC_WRITE, rc.local.sge(8), remote=rc.remote.va + at, rkey=rc.remote.key,
                   **options)  # fmt: skip


@pytest.mark.parametrize("kind", [GLOBAL, PERSISTENT, GLOBAL | PERSISTENT])
@pytest.mark.parametrize("level", [RANGE, REGION])
def test_a_flush_completes_after_the_writes_before_it(placed, kind, level):
    placed.bench.log()
    placed.write(1, 5000, flags=0)
    flush(placed, 2, kind, level)
    placed.bench.run()
    (cqe,) = placed.a.cq.poll()
    assert (cqe["wr_id"], cqe["status"], cqe["opcode"]) == (2, 0, WcOpcode.FLUSH)
    assert placed.remote.data[:5000] == placed.local.data[:5000]
    assert placed.bench.sent()[-1] == RcOpcode.READ_RESP_ONLY


@pytest.mark.parametrize("kind, access", [(GLOBAL, Access.FLUSH_PERSISTENT), (PERSISTENT, Access.FLUSH_GLOBAL)])
def test_a_flush_needs_the_right_of_its_placement(placed, kind, access):
    placed.remote = placed.bench.mr(4, access=ALL | access)
    flush(placed, 1, kind)
    placed.bench.run()
    assert placed.a.statuses() == [(1, WcStatus.REM_ACCESS_ERR)]


def test_a_flush_needs_the_right_of_the_qp(bench):
    rc = connected(bench)
    rc.remote = bench.mr(4, access=RIGHTS)
    flush(rc, 1)
    bench.run()
    assert rc.a.statuses() == [(1, WcStatus.REM_INV_REQ_ERR)]


@pytest.mark.parametrize("kind, level", [(0, RANGE), (GLOBAL, 2), (GLOBAL, 3)])
def test_a_flush_of_no_known_kind_is_an_invalid_request(placed, kind, level):
    flush(placed, 1, kind, level)
    placed.bench.run()
    assert placed.a.statuses() == [(1, WcStatus.REM_INV_REQ_ERR)]


def test_a_range_flush_stays_in_its_region_a_region_flush_has_no_range(placed):
    flush(placed, 1, level=REGION, at=10**6, length=10**6)
    placed.bench.run()
    assert placed.a.statuses() == [(1, 0)]
    flush(placed, 2, length=4 * 4096 + 1)
    placed.bench.run()
    assert placed.a.statuses() == [(2, WcStatus.REM_ACCESS_ERR)]


@pytest.mark.parametrize("inline", [None, b"\x11\x22\x33\x44\x55\x66\x77\x88"])
def test_an_atomic_write_puts_eight_bytes(placed, inline):
    before = placed.remote.data
    if inline:
        placed.a.post_send(1, WrOpcode.ATOMIC_WRITE, remote=placed.remote.va + 64, rkey=placed.remote.key,
                           inline=inline)  # fmt: skip
    else:
        atomic_write(placed, 1)
    placed.bench.run()
    (cqe,) = placed.a.cq.poll()
    assert (cqe["status"], cqe["opcode"]) == (0, WcOpcode.ATOMIC_WRITE)
    assert placed.remote.data == before[:64] + (inline or placed.local.data[:8]) + before[72:]


def test_a_misaligned_atomic_write_is_an_invalid_request(placed):
    atomic_write(placed, 1, at=4)
    placed.bench.run()
    assert placed.a.statuses() == [(1, WcStatus.REM_INV_REQ_ERR)]


def test_an_atomic_write_is_exactly_eight_bytes(placed):
    placed.a.post_send(1, WrOpcode.ATOMIC_WRITE, placed.local.sge(16), remote=placed.remote.va, rkey=placed.remote.key)
    placed.bench.run()
    assert placed.a.statuses() == [(1, WcStatus.LOC_LEN_ERR)]


@pytest.mark.parametrize("post", [flush, atomic_write])
def test_a_lost_answer_is_given_again_from_memory_of_it(placed, post):
    lost = []

    def decide(row):
        if row.opcode == RcOpcode.READ_RESP_ONLY and not lost:
            lost.append(1)
            return DROP
        return None

    wire = Wire(placed.bench, decide)
    post(placed, 1)
    wire.run()
    assert placed.a.statuses() == [(1, 0)] and lost == [1]
    assert placed.bench.device.row.duplicates == 1


@pytest.mark.parametrize("post", [flush, atomic_write])
def test_both_count_as_outstanding_and_wait_at_the_head(bench, post):
    rc = connected(bench, ACCESS=RIGHTS, MAX_RD_ATOMIC=1)
    rc.remote = bench.mr(4, access=RIGHTS)
    most = [0]
    for wr_id in range(4):
        post(rc, wr_id)
    bench.step_until(lambda: most.append(int(rc.a.row().rd_atomic)) or (len(rc.a.cq.poll()) and rc.a.row().sq_una == 4))
    assert max(most) == 1


def test_a_missing_page_of_an_atomic_write_is_rnr_naked(bench):
    rc = connected(bench, remote=False)
    atomic_write(rc, 1)
    fault = bench.fault()
    rc.remote.map()
    bench.resume(fault["token"])
    bench.run()
    assert rc.a.statuses() == [(1, 0)] and bench.device.row.rnr_naks_sent > 0


def test_a_fence_waits_for_a_flush(placed):
    from nicemu.abi.verbs import SendFlag

    placed.bench.log()
    flush(placed, 1)
    placed.write(2, 8, flags=SendFlag.FENCE | SendFlag.SIGNALED)
    placed.bench.run()
    assert placed.bench.sent()[:3] == [RcOpcode.FLUSH, RcOpcode.READ_RESP_ONLY, RcOpcode.WRITE_ONLY]


def test_states_of_both_sides_survive(placed):
    for wr_id in range(20):
        flush(placed, wr_id)
        atomic_write(placed, wr_id + 20)
    placed.bench.run()
    assert [s for _, s in placed.a.statuses()] == [0] * 40
    assert placed.a.row().state == placed.b.row().state == QpState.RTS
