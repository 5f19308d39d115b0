"""Memory windows: what may be bound, what a bound one opens, and how it closes (rxe_mw.c and its IBA clauses)."""

import pytest

from nicemu.abi.command import Command, Status
from nicemu.abi.verbs import QpState, WcStatus
from tests.nic.conftest import Rc, connected
from tests.nic.objects import INIT_MASK
from tests.nic.testbench import ALL, Bench, Cq, Qp, WrOpcode
from tests.nic.windows import ATOMIC, BIND, LOCAL, READ, WRITE, ZERO_BASED, Window

MW_BIND_ERR, LOC_QP_OP_ERR = WcStatus.MW_BIND_ERR, WcStatus.LOC_QP_OP_ERR
SUCCESS, REM_ACCESS = WcStatus.SUCCESS, WcStatus.REM_ACCESS_ERR
PAGE = 4096


@pytest.fixture
def rc(bench: Bench) -> Rc:
    """Connected; the remote region lets windows be bound to it and gives no remote right of its own."""
    rc = connected(bench)
    rc.remote = bench.mr(4, LOCAL | BIND)
    rc.remote.fill(2)
    return rc


@pytest.fixture(params=[1, 2], ids=["type 1", "type 2"])
def window(request, rc: Rc) -> Window:
    """A window that nothing has bound yet."""
    return Window(rc.bench, request.param)


@pytest.fixture
def type_1(rc: Rc) -> Window:
    return Window(rc.bench, 1)


@pytest.fixture
def type_2(rc: Rc) -> Window:
    return Window(rc.bench, 2)


def use(rc: Rc, window: Window, opcode=WrOpcode.RDMA_WRITE, va=None, length=8, qp=None):
    """One request through the window's key: its status."""
    qp = qp or rc.a
    qp.post_send(1, opcode, rc.local.sge(length), remote=rc.remote.va if va is None else va, rkey=window.key)
    rc.bench.run()
    ((_, status),) = qp.statuses()
    return status


# Binding


def test_a_window_opens_nothing_before_it_is_bound(rc, window):
    assert use(rc, window) == REM_ACCESS


def test_bound_it_opens_its_range_under_its_new_key(rc, window):
    assert window.bind(rc.b, rc.remote, offset=PAGE, length=PAGE) == SUCCESS
    assert window.key & 255 == 1
    assert use(rc, window, va=rc.remote.va + PAGE, length=PAGE) == SUCCESS
    assert rc.remote.data[PAGE : 2 * PAGE] == rc.local.data[:PAGE]


def test_the_program_chooses_the_variant_of_the_key(rc, window):
    assert window.bind(rc.b, rc.remote, new=window.key | 0x5A) == SUCCESS
    assert window.key & 255 == 0x5A and use(rc, window) == SUCCESS


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("another index in the new key", dict(new=901 << 8 | 1)),
        ("no such window", dict(present=902 << 8)),
        ("a region's key for the window's", dict(present=2 << 8 | 1)),
        ("no such region", dict(lkey=777 << 8 | 1)),
        ("a stale lkey", dict(lkey=3 << 8 | 2)),
        ("one byte before the region (C10-75)", dict(offset=-1)),
        ("one byte behind it (C10-75)", dict(offset=3 * PAGE + 1)),
        ("a length that wraps round", dict(length=(1 << 64) - PAGE)),
        ("an address that wraps round", dict(va=(1 << 64) - PAGE)),
        ("a right that windows do not have", dict(access=BIND | READ)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(rc, window, what, changes):
    assert window.bind(rc.b, rc.remote, **changes) == MW_BIND_ERR
    assert use(rc, window) == REM_ACCESS


def test_local_write_may_be_named_and_gives_nothing(rc, window):
    """Programs for soft-RoCE and mlx5 name it (rdma-core's test_mr)."""
    assert window.bind(rc.b, rc.remote, access=LOCAL | READ) == SUCCESS
    assert use(rc, window) == REM_ACCESS


def test_a_region_without_bind_access_is_refused(rc, window):
    """C10-73."""
    assert window.bind(rc.b, rc.bench.mr(4, ALL)) == MW_BIND_ERR


@pytest.mark.parametrize("access", [WRITE, ATOMIC])
def test_a_window_that_changes_memory_needs_a_writable_region(rc, window, access):
    """C10-74."""
    assert window.bind(rc.b, rc.bench.mr(4, BIND), access=access) == MW_BIND_ERR
    assert window.bind(rc.b, rc.bench.mr(4, BIND), access=READ) == SUCCESS


def test_window_region_and_qp_are_of_one_pd(rc, window):
    """C10-72."""
    other = Window(rc.bench, window.kind, pd=2, index=910)
    assert other.bind(rc.b, rc.remote) == MW_BIND_ERR
    assert window.bind(rc.b, rc.bench.region(4, LOCAL | BIND, pd=2)) == MW_BIND_ERR


def test_a_window_is_not_bound_to_a_window(rc, window):
    first = Window(rc.bench, window.kind, index=911)
    assert first.bind(rc.b, rc.remote) == SUCCESS
    assert window.bind(rc.b, rc.remote, lkey=first.key) == MW_BIND_ERR


def test_a_refused_bind_leaves_the_window_as_it_was(rc, type_1):
    type_1.bind(rc.b, rc.remote)
    assert type_1.bind(rc.b, rc.remote, length=1 << 40) == MW_BIND_ERR
    assert use(rc, type_1) == SUCCESS


# Rights, range, owner


RIGHTS = {WrOpcode.RDMA_WRITE: WRITE, WrOpcode.RDMA_READ: READ, WrOpcode.ATOMIC_FETCH_AND_ADD: ATOMIC}


@pytest.mark.parametrize("granted", RIGHTS.values())
@pytest.mark.parametrize("opcode", RIGHTS)
def test_the_window_gives_its_own_rights(rc, window, opcode, granted):
    window.bind(rc.b, rc.remote, access=granted)
    assert use(rc, window, opcode) == (SUCCESS if RIGHTS[opcode] == granted else REM_ACCESS)


@pytest.mark.parametrize(("at", "length"), [(99, 8), (100, 201), (300, 1), (292, 9), (0, 8)])
@pytest.mark.parametrize("opcode", [WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ])
def test_outside_of_the_window_is_refused(rc, window, opcode, at, length):
    before = rc.remote.data
    window.bind(rc.b, rc.remote, offset=100, length=200)
    assert use(rc, window, opcode, rc.remote.va + at, length) == REM_ACCESS
    assert rc.remote.data == before


def test_a_window_is_never_an_lkey(rc, window):
    window.bind(rc.b, rc.remote, access=READ | WRITE | ATOMIC)
    rc.b.post_send(1, WrOpcode.SEND, (rc.remote.va, 8, window.key))
    rc.bench.run()
    assert rc.b.statuses() == [(1, WcStatus.LOC_PROT_ERR)]


def test_a_window_is_no_receive_buffer(rc, window):
    window.bind(rc.b, rc.remote)
    rc.b.post_recv(1, (rc.remote.va, 8, window.key))
    rc.send(2, 8)
    rc.bench.run()
    assert rc.b.statuses() == [(1, WcStatus.LOC_PROT_ERR)]


def second_pair(bench: Bench) -> tuple[Qp, Qp]:
    a, b = Qp(bench, 12, Cq(bench, 11)), Qp(bench, 13, Cq(bench, 12))
    a.connect(b)
    b.connect(a)
    return a, b


def test_a_type_1_window_is_open_to_every_qp_of_the_pd(rc, type_1):
    type_1.bind(rc.b, rc.remote)
    other, peer = second_pair(rc.bench)
    assert use(rc, type_1, qp=other) == SUCCESS and peer.number


def test_a_type_2_window_is_open_through_its_qp_only(rc, type_2):
    type_2.bind(rc.b, rc.remote)
    other, peer = second_pair(rc.bench)
    assert use(rc, type_2, qp=other) == REM_ACCESS and peer.number
    assert use(rc, type_2) == SUCCESS


def test_a_reset_of_its_qp_closes_a_type_2_window(rc, type_2):
    type_2.bind(rc.b, rc.remote)
    rc.b.modify(INIT_MASK & 1, STATE=QpState.RESET)
    rc.b.connect(rc.a)
    assert use(rc, type_2) == REM_ACCESS


# Zero-based


def test_a_zero_based_window_counts_from_0(rc, type_2):
    assert type_2.bind(rc.b, rc.remote, offset=100, length=50, access=WRITE | ZERO_BASED) == SUCCESS
    assert use(rc, type_2, va=0, length=50) == SUCCESS
    assert rc.remote.data[100:150] == rc.local.data[:50]
    assert use(rc, type_2, va=1, length=50) == REM_ACCESS


def test_a_type_1_window_is_never_zero_based(rc, type_1):
    """o10-36.2.2."""
    assert type_1.bind(rc.b, rc.remote, access=READ | ZERO_BASED) == MW_BIND_ERR


def test_a_zero_based_region_takes_no_window(rc, window):
    assert window.bind(rc.b, rc.bench.mr(4, LOCAL | BIND | ZERO_BASED)) == MW_BIND_ERR


# Closing


def test_type_1_is_bound_anew_and_its_old_key_is_dead(rc, type_1):
    type_1.bind(rc.b, rc.remote)
    old = type_1.key
    assert type_1.bind(rc.b, rc.remote, offset=PAGE) == SUCCESS
    assert use(rc, type_1, va=rc.remote.va + PAGE) == SUCCESS
    type_1.key = old
    assert use(rc, type_1, va=rc.remote.va + PAGE) == REM_ACCESS


def test_type_1_bound_to_no_bytes_is_closed(rc, type_1):
    type_1.bind(rc.b, rc.remote)
    assert type_1.bind(rc.b, rc.remote, length=0, lkey=0) == SUCCESS
    assert use(rc, type_1) == REM_ACCESS


def test_type_2_is_not_bound_twice_nor_to_no_bytes(rc, type_2):
    """o10-37.2.30, o10-37.2.40."""
    assert type_2.bind(rc.b, rc.remote, length=0, lkey=0) == MW_BIND_ERR
    assert type_2.bind(rc.b, rc.remote) == SUCCESS
    assert type_2.bind(rc.b, rc.remote) == MW_BIND_ERR
    assert use(rc, type_2) == SUCCESS


def test_local_invalidate_closes_type_2_which_can_be_bound_again(rc, type_2):
    type_2.bind(rc.b, rc.remote)
    assert type_2.local_inv(rc.b) == SUCCESS
    assert type_2.local_inv(rc.b) == LOC_QP_OP_ERR
    assert type_2.bind(rc.b, rc.remote, present=type_2.index << 8) == SUCCESS
    assert use(rc, type_2) == SUCCESS


def test_an_invalidated_window_opens_nothing(rc, type_2):
    type_2.bind(rc.b, rc.remote)
    type_2.local_inv(rc.b)
    assert use(rc, type_2) == REM_ACCESS


def test_remote_invalidate_says_whether_the_key_was_valid(rc, type_2):
    assert not type_2.remote_inv(rc.b)
    type_2.bind(rc.b, rc.remote)
    assert not type_2.remote_inv(rc.a)  # not its QP
    assert type_2.remote_inv(rc.b) and not type_2.remote_inv(rc.b)
    assert use(rc, type_2) == REM_ACCESS


def test_only_type_2_windows_are_invalidated(rc, type_1):
    """o10-37.2.26."""
    type_1.bind(rc.b, rc.remote)
    assert type_1.local_inv(rc.b) == LOC_QP_OP_ERR
    assert type_1.local_inv(rc.b, rc.remote.key) == LOC_QP_OP_ERR
    assert use(rc, type_1) == SUCCESS


def test_an_invalidation_in_the_middle_of_a_write_ends_it(rc, type_2):
    """Packets behind it are refused: a long WRITE asks for its window packet by packet."""
    type_2.bind(rc.b, rc.remote, length=4 * PAGE)
    rc.a.post_send(1, WrOpcode.RDMA_WRITE, rc.local.sge(), remote=rc.remote.va, rkey=type_2.key)
    rc.bench.step_until(lambda: rc.b.row().message_offset > 2048)
    assert type_2.local_inv(rc.b) == SUCCESS
    rc.bench.run()
    assert rc.a.statuses() == [(1, REM_ACCESS)] and rc.remote.data[3 * PAGE :] != rc.local.data[3 * PAGE :]


# Lifetimes


def test_a_region_with_windows_is_neither_deregistered_nor_changed(rc, window):
    """IBA 10.6.7.2.6."""
    window.bind(rc.b, rc.remote)
    rc.bench.command(Command.DESTROY_MKEY, rc.remote.index, expect=Status.BAD_STATE)
    rc.bench.command(Command.MODIFY_MKEY, rc.remote.index, 4, rc.remote.key, expect=Status.BAD_STATE)
    assert use(rc, window) == SUCCESS
    rc.bench.command(Command.DESTROY_MKEY, window.index)
    rc.bench.command(Command.DESTROY_MKEY, rc.remote.index)


def test_a_destroyed_window_tells_its_last_key(rc, window):
    window.bind(rc.b, rc.remote, new=window.key | 0x77)
    rc.bench.command(Command.DESTROY_MKEY, window.index)
    assert int.from_bytes(rc.bench.mailbox[:8].tobytes(), "little") == window.key
    assert use(rc, window) == REM_ACCESS


def test_destroying_a_window_drains_what_goes_through_it(rc, window):
    window.bind(rc.b, rc.remote)
    rc.bench.log()
    rc.a.post_send(1, WrOpcode.RDMA_WRITE, rc.local.sge(8), remote=rc.remote.va, rkey=window.key)
    rc.bench.step_until(lambda: rc.bench.world.mkey[int(rc.bench.device.row.mkey_base) + window.index].busy_until)
    assert rc.remote.data[:8] != rc.local.data[:8]
    rc.bench.command(Command.DESTROY_MKEY, window.index)
    assert rc.remote.data[:8] == rc.local.data[:8]


def test_a_missing_page_is_the_regions_fault(rc, window):
    """The driver knows regions only: the event names the region's key and its address."""
    rc.remote = rc.bench.region(4, LOCAL | BIND)
    window.bind(rc.b, rc.remote, offset=PAGE, length=PAGE, access=WRITE | (ZERO_BASED if window.kind == 2 else 0))
    va = 8 if window.kind == 2 else rc.remote.va + PAGE + 8
    rc.a.post_send(1, WrOpcode.RDMA_WRITE, rc.local.sge(8), remote=va, rkey=window.key)
    fault = rc.bench.fault()
    assert (fault["key"], fault["va"]) == (rc.remote.key, rc.remote.va + PAGE + 8)


def test_a_window_is_not_re_registered(rc, window):
    rc.bench.command(Command.MODIFY_MKEY, window.index, 4, window.key, 0, 0, 0, ALL, expect=Status.BAD_RESOURCE)
