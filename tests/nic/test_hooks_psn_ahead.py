"""Hook PSN_AHEAD: requests ahead of a gap are kept in order, asked for one gap after the other, and never leaked."""

from __future__ import annotations

import pytest

from nicemu.abi.command import Command
from nicemu.abi.verbs import QpState, QpType
from nicemu.tables.trace import Ev
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import connected
from tests.nic.image_files import image, written
from tests.nic.packets import DROP, Wire, inject
from tests.nic.testbench import Bench, pair

KEEP = "def psn_ahead(world, row, arg):\n    return KEEP\n"
SILENT = "def psn_ahead(world, row, arg):\n    return DROP\n"
MOST_AHEAD = 128


@pytest.fixture
def rc():
    """Connected, on firmware that keeps what is ahead; nobody asks by himself."""
    return connected(Bench(firmware_image=written(KEEP)))


def put(rc, *psns):
    """WRITEs of eight bytes by hand: PSN ``n`` writes to ``remote[8 n:]``."""
    for psn in psns:
        place = dict(va=rc.remote.va + 8 * psn, rkey=rc.remote.key, length=8, payload=8)
        inject(rc.bench, rc.a, rc.b, psn=psn, opcode=RcOpcode.WRITE_ONLY, **place)
        rc.bench.run_for(2_000)


def naked(rc):
    """PSNs that NAKs have named, counted from the first."""
    return [b - rc.a.psn & 0xFFFFFF for kind, _, _, b, *_ in rc.bench.trace() if kind == Ev.NAK]


def kept(rc):
    return int(rc.b.row().ahead_count), int(rc.bench.device.row.requests_waiting)


def expected(rc):
    return int(rc.b.row().epsn) - rc.a.psn & 0xFFFFFF


def free_packets(bench):
    """Rows of the packet pool that nobody has when nothing is on its way."""
    bench.run()
    control, rows = bench.world.control[0], 0
    at = int(control.packet_free)
    while at:
        rows, at = rows + 1, int(bench.world.packet[at].next)
    return rows + int(control.packet_end) - int(control.packet_next)


def test_kept_requests_follow_when_the_gap_is_closed_in_whatever_order_they_came(rc):
    rc.bench.log()
    put(rc, 3, 1, 4, 2)
    assert expected(rc) == 0 and kept(rc) == (4, 4) and naked(rc) == [0]
    put(rc, 0)
    assert expected(rc) == 5 and kept(rc) == (0, 0)
    assert rc.b.row().msn == 5 and naked(rc) == [0]


def test_each_gap_is_asked_for_when_it_is_the_first(rc):
    rc.bench.log()
    put(rc, 2, 5, 6)
    assert naked(rc) == [0]
    put(rc, 0)
    assert naked(rc) == [0, 1] and expected(rc) == 1
    put(rc, 1)
    assert naked(rc) == [0, 1, 3] and expected(rc) == 3
    put(rc, 3, 4)
    assert naked(rc) == [0, 1, 3, 4] and expected(rc) == 7 and kept(rc) == (0, 0)


def test_a_second_copy_is_dropped(rc):
    free = free_packets(rc.bench)
    put(rc, 2, 2, 1, 2, 1)
    assert kept(rc) == (2, 2)
    put(rc, 0)
    assert expected(rc) == 3 and rc.b.row().msn == 3 and free_packets(rc.bench) == free


def test_what_came_another_way_meanwhile_is_dropped(rc):
    """A requester that goes back sends again what is kept."""
    put(rc, 2, 3)
    put(rc, 0, 1, 2, 3, 4)
    assert expected(rc) == 5 and rc.b.row().msn == 5 and kept(rc) == (0, 0)
    assert rc.bench.device.row.duplicates == 2


def test_no_more_than_a_window_is_kept(rc):
    free = free_packets(rc.bench)
    for psn in range(1, MOST_AHEAD + 40):
        inject(rc.bench, rc.a, rc.b, psn=psn, opcode=RcOpcode.WRITE_ONLY)
    rc.bench.run_for(10_000)
    assert kept(rc) == (MOST_AHEAD, MOST_AHEAD)
    put(rc, 0)
    assert expected(rc) == MOST_AHEAD + 1 and free_packets(rc.bench) == free


def test_all_qps_together_keep_no_more_than_the_pool_can_spare(rc):
    free = free_packets(rc.bench)
    rc.bench.device.row.requests_waiting = 8192
    put(rc, 1, 2)
    assert kept(rc) == (0, 8192) and free_packets(rc.bench) == free


@pytest.mark.parametrize("end", ["reset", "error", "destroyed"])
def test_a_qp_that_ends_gives_them_back(rc, end):
    free = free_packets(rc.bench)
    put(rc, 2, 3, 5)
    if end == "reset":
        rc.b.modify(1, STATE=QpState.RESET)
    elif end == "error":
        rc.b.modify(1, STATE=QpState.ERR)
    else:
        rc.bench.command(Command.DESTROY_QP, rc.b.number)
    assert kept(rc) == (0, 0) and free_packets(rc.bench) == free


def test_a_kept_request_that_is_bad_is_refused_in_its_turn(rc):
    inject(rc.bench, rc.a, rc.b, psn=1, opcode=RcOpcode.WRITE_ONLY, va=rc.remote.va, rkey=7, length=8, payload=8)
    put(rc, 2)
    assert rc.b.row().state == QpState.RTS
    put(rc, 0)
    rc.bench.run()
    assert rc.b.row().state == QpState.ERR and kept(rc) == (0, 0)


def test_a_kept_read_is_counted_once():
    bench = Bench(firmware_image=image("selective_repeat"))
    rc = connected(bench, MAX_DEST_RD_ATOMIC=2, MAX_RD_ATOMIC=2)
    data = rc.remote.data
    lost = []
    rc.write(0, 8, at=8192)
    for number in range(1, 9):
        rc.read(number, 100, offset=200 * number, at=1000 * number)

    def lose_the_write(row):
        return lost.append(1) or DROP if row.opcode == RcOpcode.WRITE_ONLY and not lost else None

    Wire(bench, lose_the_write).run()
    assert rc.a.statuses() == [(number, 0) for number in range(9)]
    assert all(rc.local.data[200 * n :][:100] == data[1000 * n :][:100] for n in range(1, 8))
    assert rc.b.row().rx_non_posted == 0


def test_dropped_in_silence_the_gap_is_found_by_the_timer():
    rc = connected(Bench(firmware_image=written(SILENT)), TIMEOUT=3)
    lost = []
    rc.write(1, 5000)

    def lose_the_first(row):
        return lost.append(1) or DROP if row.opcode == RcOpcode.WRITE_FIRST and not lost else None

    Wire(rc.bench, lose_the_first).run()
    assert rc.a.statuses() == [(1, 0)] and rc.bench.device.row.sequence_naks_sent == 0
    assert rc.bench.device.row.timeouts == 1


def test_uc_keeps_nothing():
    bench = Bench(firmware_image=written(KEEP))
    a, b = pair(bench, kind=QpType.UC)
    inject(bench, a, b, psn=1, opcode=RcOpcode.WRITE_MIDDLE, transport=1, payload=1024)
    bench.run_for(5_000)
    assert b.row().ahead_count == 0 and bench.device.row.requests_waiting == 0
