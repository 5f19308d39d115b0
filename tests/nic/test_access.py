"""Keys, PDs, ranges and rights, local and remote: the status hardware gives, and nothing written."""

import pytest

from nicemu.abi.command import Command
from nicemu.abi.verbs import Access, AsyncEvent, QpState, WcStatus
from tests.nic.conftest import connected
from tests.nic.testbench import ALL, WrOpcode

WRITE, READ, SEND = WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ, WrOpcode.SEND
CAS, ADD = WrOpcode.ATOMIC_CMP_AND_SWP, WrOpcode.ATOMIC_FETCH_AND_ADD
LOC_PROT, REM_ACCESS = WcStatus.LOC_PROT_ERR, WcStatus.REM_ACCESS_ERR
NEED = {WRITE: Access.REMOTE_WRITE, READ: Access.REMOTE_READ, CAS: Access.REMOTE_ATOMIC, ADD: Access.REMOTE_ATOMIC}
END = 4 * 4096


@pytest.fixture
def unwritten(rc):
    """An RC pair; at the end of the test no byte of either region has changed."""
    before = rc.local.data, rc.remote.data
    yield rc
    assert (rc.local.data, rc.remote.data) == before
    assert rc.bench.faults() == []


def refused_locally(rc, status=LOC_PROT):
    """The WQE failed here and nothing went on the wire."""
    rc.bench.log()
    rc.bench.run()
    assert rc.a.statuses() == [(1, status)] and rc.bench.sent() == []
    assert rc.a.row().state == QpState.ERR


def refused_remotely(rc, status=REM_ACCESS, event=AsyncEvent.QP_ACCESS_ERR):
    """The peer answered with a NAK, of remote access by default, and both QPs are in error."""
    rc.bench.run()
    assert rc.a.statuses() == [(1, status)]
    assert (rc.a.row().state, rc.b.row().state) == (QpState.ERR, QpState.ERR)
    assert rc.bench.asyncs() == [(event, rc.b.number)]


KEYS = {
    "variant + 1": lambda key: key + 1,
    "variant 0": lambda key: key & ~255,
    "next index": lambda key: key + 256,
    "zero": lambda key: 0,
    "all ones": lambda key: 0xFFFFFFFF,
    "index 0": lambda key: key & 255,
}


@pytest.mark.parametrize("change", KEYS.values(), ids=KEYS.keys())
@pytest.mark.parametrize("opcode", [WRITE, READ, SEND, ADD])
def test_bad_lkey(unwritten, opcode, change):
    rc = unwritten
    if change(rc.local.key) == rc.remote.key:
        return
    rc.a.post_send(1, opcode, (rc.local.va, 8, change(rc.local.key)), remote=rc.remote.va, rkey=rc.remote.key)
    refused_locally(rc)


@pytest.mark.parametrize("change", KEYS.values(), ids=KEYS.keys())
@pytest.mark.parametrize("opcode", [WRITE, READ, CAS, ADD])
def test_bad_rkey(unwritten, opcode, change):
    rc = unwritten
    rc.a.post_send(1, opcode, rc.local.sge(8), remote=rc.remote.va, rkey=change(rc.remote.key))
    refused_remotely(rc)


OUTSIDE = [
    (-8, 8),
    (-1, 1),
    (-8, 16),
    (END, 8),
    (END - 4, 8),
    (END - 8, 16),
    (0, END + 1),
    (1 << 40, 8),
    (-(1 << 40), 8),
    (2**63, 8),
]


@pytest.mark.parametrize("start, length", OUTSIDE)
@pytest.mark.parametrize("opcode", [WRITE, READ, SEND])
def test_local_range_outside_the_region(unwritten, opcode, start, length):
    rc = unwritten
    sge = ((rc.local.va + start) % 2**64, length, rc.local.key)
    rc.a.post_send(1, opcode, sge, remote=rc.remote.va, rkey=rc.remote.key)
    refused_locally(rc)


@pytest.mark.parametrize("start, length", OUTSIDE)
@pytest.mark.parametrize("opcode", [WRITE, READ])
def test_remote_range_outside_the_region(bench, opcode, start, length):
    rc = connected(bench)
    source = bench.mr(8)
    before = rc.remote.data, source.data
    address = (rc.remote.va + start) % 2**64
    rc.a.post_send(1, opcode, source.sge(length), remote=address, rkey=rc.remote.key)
    refused_remotely(rc)
    assert (rc.remote.data, source.data) == before


@pytest.mark.parametrize("length", [1, 8, 4096, 4097, END])
def test_ranges_that_end_with_the_region_are_inside(rc, length):
    rc.write(1, length, offset=END - length, at=END - length)
    rc.read(2, length, offset=END - length, at=END - length)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]


def test_a_region_may_begin_and_end_inside_pages(rc):
    """Byte granularity: 100 bytes from 50 before a page end."""
    small = rc.bench.sub_region(rc.remote, 4096 - 50, 100)
    rc.a.post_send(1, WRITE, rc.local.sge(100), remote=small.va, rkey=small.key)
    rc.bench.run()
    assert rc.a.statuses() == [(1, 0)]
    assert rc.remote.data[4046:4146] == rc.local.data[:100]


@pytest.mark.parametrize("start, length", [(-1, 1), (0, 101), (99, 2), (100, 1)])
def test_one_byte_outside_a_region_inside_its_page(rc, start, length):
    small = rc.bench.sub_region(rc.remote, 4096 - 50, 100)
    before = rc.remote.data
    rc.a.post_send(1, WRITE, rc.local.sge(length), remote=small.va + start, rkey=small.key)
    refused_remotely(rc)
    assert rc.remote.data == before


def test_zero_length_needs_no_key_and_no_range(unwritten):
    unwritten.a.post_send(1, WRITE, (1234, 0, 99), remote=77, rkey=88)
    unwritten.a.post_send(2, READ, (1234, 0, 99), remote=77, rkey=88)
    unwritten.bench.run()
    assert unwritten.a.statuses() == [(1, 0), (2, 0)]


@pytest.mark.parametrize("opcode", [WRITE, READ, SEND, ADD])
def test_a_local_region_of_another_pd(rc, opcode):
    other = rc.bench.region(4, pd=2)
    rc.a.post_send(1, opcode, other.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    refused_locally(rc)


@pytest.mark.parametrize("opcode", [WRITE, READ, CAS, ADD])
def test_a_remote_region_of_another_pd(rc, opcode):
    other = rc.bench.region(4, pd=2)
    rc.a.post_send(1, opcode, rc.local.sge(8), remote=other.va, rkey=other.key)
    refused_remotely(rc)


@pytest.mark.parametrize("opcode", [WRITE, READ, CAS, ADD])
def test_a_region_without_the_remote_right(rc, opcode):
    other = rc.bench.mr(4, ALL & ~NEED[opcode])
    before = other.data
    rc.a.post_send(1, opcode, rc.local.sge(8), remote=other.va, rkey=other.key)
    refused_remotely(rc)
    assert other.data == before


@pytest.mark.parametrize("opcode", [WRITE, READ, CAS, ADD])
def test_a_qp_without_the_remote_right(bench, opcode):
    rc = connected(bench, ACCESS=ALL & ~NEED[opcode])
    before = rc.remote.data
    rc.a.post_send(1, opcode, rc.local.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    refused_remotely(rc, WcStatus.REM_INV_REQ_ERR, AsyncEvent.QP_REQ_ERR)
    assert rc.remote.data == before


@pytest.mark.parametrize("opcode, needs", [(READ, True), (ADD, True), (WRITE, False), (SEND, False)])
def test_local_write_is_needed_for_what_returns_data(rc, opcode, needs):
    other = rc.bench.mr(4, 0)
    rc.b.post_recv(5, rc.remote.sge())
    rc.a.post_send(1, opcode, other.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    rc.bench.run()
    assert rc.a.statuses() == [(1, LOC_PROT if needs else 0)]


def test_a_receive_needs_local_write(rc):
    other = rc.bench.mr(4, 0)
    before = other.data
    rc.b.post_recv(5, other.sge(64))
    rc.send(1, 64)
    rc.bench.run()
    assert rc.b.statuses() == [(5, LOC_PROT)] and rc.a.statuses() == [(1, WcStatus.REM_OP_ERR)]
    assert other.data == before


def test_one_bad_sge_of_several_refuses_the_whole_request(unwritten):
    rc = unwritten
    rc.a.post_send(
        1, WRITE, rc.local.sge(8), rc.local.sge(8), (rc.local.va, 8, 3), remote=rc.remote.va, rkey=rc.remote.key
    )
    refused_locally(rc)


@pytest.mark.parametrize("opcode", [WRITE, READ])
def test_a_region_that_takes_the_place_of_a_message_s_own_is_not_touched(bench, opcode):
    """The message ends with an access error: it belongs to the key it came with, not to the row behind it."""
    rc = connected(bench, pages=128)
    other = bench.mr(128)
    other.fill(3)
    before = other.data, rc.local.data
    rc.a.post_send(1, opcode, rc.local.sge(), remote=rc.remote.va, rkey=rc.remote.key)
    bench.step_until(lambda: rc.b.row().msn or rc.b.row().message_offset or rc.b.row().read_active)
    index, key = rc.remote.index, rc.remote.key + 1
    bench.command(Command.DESTROY_MKEY, index)
    bench.command(Command.CREATE_MKEY, index, key, bench.pd, rc.remote.va, 128 * 4096, ALL, 1, 9)
    rc.remote.frames = other.frames
    rc.remote.map()
    bench.run()
    assert rc.a.statuses() == [(1, REM_ACCESS)]
    assert other.data == before[0]
    assert opcode == READ or rc.local.data == before[1]
