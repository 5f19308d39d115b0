"""Kinds of memory keys: first bytes anywhere in a page, null, device memory, implicit, 2 MiB pages; re-registration."""

import numpy as np
import pytest

from nicemu.abi.command import IMPLICIT_BITS, Command, MkeyFlag, Rereg, Status, mtt_entry
from nicemu.abi.rings import FaultType
from nicemu.abi.verbs import WcStatus
from nicemu.tables.records import FrameKind
from tests.nic.conftest import Rc, connected
from tests.nic.objects import Mr
from tests.nic.testbench import ALL, Bench, WrOpcode

PAGE, HUGE, GIB = 4096, 1 << 21, 1 << 30
SUCCESS, REM_ACCESS, LOC_PROT = WcStatus.SUCCESS, WcStatus.REM_ACCESS_ERR, WcStatus.LOC_PROT_ERR
WRITE, READ, ADD = WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ, WrOpcode.ATOMIC_FETCH_AND_ADD


def use(rc: Rc, opcode: int, va: int, key: int, length: int = 8, **fields: int) -> int:
    """One request on ``key`` as the remote one: its status."""
    rc.a.post_send(1, opcode, rc.local.sge(length), remote=va, rkey=key, **fields)
    rc.bench.run()
    ((_, status),) = rc.a.statuses()
    return status


def create(bench: Bench, index: int, base: int, length: int, flags: int, *more: int, access: int = ALL) -> int:
    """CREATE_MKEY: its key."""
    key = index << 8 | 7
    bench.command(Command.CREATE_MKEY, index, key, bench.pd, base, length, access, flags, index, *more)
    return key


def entries(bench: Bench, index: int, first: int, words: list[int]) -> None:
    """UPDATE_MTT."""
    array = np.array(words, np.int64)
    bench.mailbox[: array.nbytes] = array.view(np.uint8)
    bench.command(Command.UPDATE_MTT, index, first, len(words))


# Where the first byte lies


@pytest.mark.parametrize(("base", "address"), [(0, 0x10_0000_0123), (0x5000, 0x10_0000_0FFF), (0x5FFF, 0x10_0000_0000)])
def test_key_and_address_may_differ_in_their_page_offset(rc, base, address):
    """A zero-based region, for one: its va 0 is a byte in the middle of a page."""
    key = create(rc.bench, 50, base, 6000, 0, (address - base) & HUGE - 1)
    entries(
        rc.bench,
        50,
        0,
        [mtt_entry(frame, True, 0) for frame in rc.remote.frames[: (address % PAGE + 6000 + 4095) // PAGE]],
    )
    assert use(rc, WRITE, base, key, 6000) == SUCCESS
    start = address % PAGE
    assert rc.remote.data[start : start + 6000] == rc.local.data[:6000]
    assert use(rc, WRITE, base + 1, key, 6000) == REM_ACCESS


@pytest.mark.parametrize("address", [0x10_0000_0FFD, 0x10_0000_1003, 0x10_0000_0FF8])
def test_an_atomic_of_an_aligned_va_may_straddle_pages(rc, address):
    key = create(rc.bench, 50, 0, 64, 0, address & HUGE - 1)
    count = (address % PAGE + 64 + PAGE - 1) // PAGE
    first = address // PAGE % 4
    entries(rc.bench, 50, 0, [mtt_entry(frame, True, 0) for frame in rc.remote.frames[first : first + count]])
    before, at = rc.remote.data, address % (4 * PAGE)
    word = int.from_bytes(before[at : at + 8], "little")
    assert use(rc, ADD, 0, key, compare=5) == SUCCESS
    after = before[:at] + ((word + 5) % 2**64).to_bytes(8, "little") + before[at + 8 :]
    assert rc.remote.data == after and int.from_bytes(rc.local.data[:8], "little") == word


# Null


def test_the_null_mkey_reads_as_zeros_and_swallows_writes(rc):
    key = create(rc.bench, 50, 0, 0, MkeyFlag.NULL, access=1)
    rc.a.post_send(1, WRITE, (0xDEAD_BEEF_0000, 9000, key), remote=rc.remote.va, rkey=rc.remote.key)
    rc.a.post_send(2, READ, (5, 6000, key), remote=rc.remote.va + 9000, rkey=rc.remote.key)
    rc.a.post_send(3, ADD, (8, 8, key), remote=rc.remote.va, rkey=rc.remote.key, compare=3)
    rc.bench.run()
    assert rc.a.statuses() == [(1, SUCCESS), (2, SUCCESS), (3, SUCCESS)]
    assert rc.remote.data[8:9000] == bytes(8992) and rc.bench.faults() == []


def test_the_null_mkey_is_no_rkey(rc):
    assert use(rc, WRITE, 0, create(rc.bench, 50, 0, 0, MkeyFlag.NULL, access=1)) == REM_ACCESS


# Device memory


def test_device_memory_is_written_read_and_added_to(rc):
    rc.bench.command(Command.ALLOC_DM, 4096, 8192)
    key = create(rc.bench, 50, 0, 6000, MkeyFlag.DEVICE_MEMORY, 0, 0, 4096 + 64)
    assert use(rc, WRITE, 0, key, 6000) == SUCCESS
    memory = rc.bench.device.memory
    assert memory[4160 : 4160 + 6000].tobytes() == rc.local.data[:6000]
    word = int.from_bytes(memory[4168:4176].tobytes(), "little")
    assert use(rc, ADD, 8, key, compare=1) == SUCCESS
    assert int.from_bytes(memory[4168:4176].tobytes(), "little") == word + 1
    assert use(rc, READ, 8, key, 5992) == SUCCESS
    assert rc.local.data[:5992] == memory[4168 : 4160 + 6000].tobytes()


def test_device_memory_ends_where_the_region_ends(rc):
    key = create(rc.bench, 50, 0, 100, MkeyFlag.DEVICE_MEMORY, 0, 0, 0)
    assert use(rc, WRITE, 93, key) == REM_ACCESS and not rc.bench.device.memory.any()


def test_device_memory_outside_of_the_device_is_refused(bench):
    total = len(bench.device.memory)
    bench.command(Command.ALLOC_DM, total - 64, 128, expect=Status.BAD_PARAM)
    bench.command(Command.CREATE_MKEY, 50, 50 << 8, 1, 0, 128, ALL, MkeyFlag.DEVICE_MEMORY, 50, 0, 0, total - 64,
                  expect=Status.BAD_PARAM)  # fmt: skip


def test_device_memory_comes_clear_and_goes_poisoned(bench):
    bench.device.memory[:] = 5
    bench.command(Command.ALLOC_DM, 64, 64)
    assert (bench.device.memory[56:136] == [5] * 8 + [0] * 64 + [5] * 8).all()
    bench.command(Command.FREE_DM, 64, 64)
    assert set(bench.device.memory[64:128]) == {0xDB}


# Implicit


@pytest.fixture
def implicit(rc: Rc) -> Rc:
    """The remote region is reached through an implicit key (50) whose child (51) for its GiB has all pages."""
    rc.key = create(rc.bench, 50, 0, 1 << IMPLICIT_BITS, MkeyFlag.ODP | MkeyFlag.IMPLICIT)  # type: ignore[attr-defined]
    slot = rc.remote.va // GIB
    rc.child = create(rc.bench, 51, slot * GIB, GIB, MkeyFlag.ODP)  # type: ignore[attr-defined]
    rc.slot = slot  # type: ignore[attr-defined]
    entries(rc.bench, 51, rc.remote.va % GIB // PAGE, [mtt_entry(frame, True, 0) for frame in rc.remote.frames])
    return rc


def test_an_implicit_key_translates_through_its_children(implicit):
    entries(implicit.bench, 50, implicit.slot, [implicit.child])
    assert use(implicit, WRITE, implicit.remote.va + 100, implicit.key, 9000) == SUCCESS
    assert implicit.remote.data[100:9100] == implicit.local.data[:9000]
    assert use(implicit, READ, implicit.remote.va, implicit.key, 4 * PAGE) == SUCCESS
    assert use(implicit, ADD, implicit.remote.va + 8, implicit.key, compare=1) == SUCCESS


def test_an_implicit_key_is_an_lkey_too(implicit):
    entries(implicit.bench, 50, implicit.slot, [implicit.child])
    implicit.a.post_send(1, WRITE, (implicit.remote.va + 9, 5000, implicit.key), remote=implicit.local.va,
                         rkey=implicit.local.key)  # fmt: skip
    implicit.bench.run()
    assert implicit.a.statuses() == [(1, SUCCESS)] and implicit.local.data[:5000] == implicit.remote.data[9:5009]


def test_without_a_child_the_parent_faults(implicit):
    implicit.a.post_send(1, WRITE, implicit.local.sge(8), remote=implicit.remote.va, rkey=implicit.key)
    fault = implicit.bench.fault()
    assert (fault["key"], fault["va"], fault["type"]) == (
        implicit.key, implicit.remote.va, FaultType.RESPONDER_RDMA,
    )  # fmt: skip
    entries(implicit.bench, 50, implicit.slot, [implicit.child])
    implicit.bench.resume(fault["token"])
    implicit.bench.run()
    assert implicit.a.statuses() == [(1, SUCCESS)]


def test_a_page_missing_in_the_child_is_the_parents_fault(implicit):
    entries(implicit.bench, 50, implicit.slot, [implicit.child])
    implicit.bench.command(Command.ZAP_MTT, 51, implicit.remote.va % GIB // PAGE + 1, 1)
    implicit.a.post_send(1, WRITE, implicit.local.sge(8), remote=implicit.remote.va + PAGE, rkey=implicit.key)
    fault = implicit.bench.fault()
    assert (fault["key"], fault["va"]) == (implicit.key, implicit.remote.va + PAGE)


def test_a_child_that_is_gone_is_no_child(implicit):
    entries(implicit.bench, 50, implicit.slot, [implicit.child])
    implicit.bench.command(Command.DESTROY_MKEY, 51)
    implicit.a.post_send(1, WRITE, implicit.local.sge(8), remote=implicit.remote.va, rkey=implicit.key)
    assert implicit.bench.fault()["key"] == implicit.key


@pytest.mark.parametrize("va", [(1 << IMPLICIT_BITS) - 7, 1 << IMPLICIT_BITS, -8, (1 << 63) - 4])
def test_an_implicit_key_ends_with_the_address_space(implicit, va):
    assert use(implicit, WRITE, va & (1 << 64) - 1, implicit.key) == REM_ACCESS


def test_there_is_no_child_beyond_the_address_space(implicit):
    implicit.bench.command(Command.UPDATE_MTT, 50, 1 << IMPLICIT_BITS - 30, 1, expect=Status.BAD_PARAM)


def test_zapping_a_child_drains_what_came_through_the_parent(implicit):
    entries(implicit.bench, 50, implicit.slot, [implicit.child])
    bench = implicit.bench
    implicit.a.post_send(1, WRITE, implicit.local.sge(8), remote=implicit.remote.va, rkey=implicit.key)
    bench.step_until(lambda: bench.world.mkey[int(bench.device.row.mkey_base) + 51].busy_until > bench.world.now)
    bench.command(Command.ZAP_MTT, 51, implicit.remote.va % GIB // PAGE, 1)
    assert implicit.remote.data[:8] == implicit.local.data[:8]


# 2 MiB pages


@pytest.fixture
def huge(bench: Bench) -> Rc:
    """Connected; the remote region is 4 MiB in two MTT entries of 2 MiB, and begins 20 KiB into the first."""
    rc = connected(bench)
    frames = [bench.frames.allocate(FrameKind.MODEL) for _ in range(2 * 512)]
    assert frames[-1] - frames[0] == len(frames) - 1
    rc.remote = Mr(bench, 60, 0x20_0000_0000 + 5 * PAGE, 2 * 512 - 5, ALL, with_frames=False)
    rc.remote.frames = frames[5:]
    rc.remote.key = create(bench, 60, rc.remote.va, rc.remote.pages * PAGE, 0, 0, 21)
    entries(bench, 60, 0, [mtt_entry(frames[0], True, 0), mtt_entry(frames[512], True, 0)])
    return rc


@pytest.mark.parametrize("at", [0, 100, 507 * PAGE - 4, 507 * PAGE, 1000 * PAGE + 5])
def test_a_2_mib_entry_translates_every_page_of_it(huge, at):
    assert use(huge, WRITE, huge.remote.va + at, huge.remote.key, 9000) == SUCCESS
    assert huge.remote.data[at : at + 9000] == huge.local.data[:9000]


def test_a_2_mib_page_takes_one_iotlb_line(huge):
    row = huge.bench.device.row
    before = int(row.iotlb_misses)
    use(huge, WRITE, huge.remote.va + PAGE, huge.remote.key, 3 * PAGE)
    assert int(row.iotlb_misses) - before == 3 + 1  # local pages, and one of 2 MiB


def test_a_2_mib_region_has_its_own_page_numbers(huge):
    huge.bench.command(Command.ZAP_MTT, 60, 0, 3, expect=Status.BAD_PARAM)
    huge.bench.command(Command.ZAP_MTT, 60, 1, 1)
    assert use(huge, WRITE, huge.remote.va, huge.remote.key) == SUCCESS
    huge.a.post_send(2, WRITE, huge.local.sge(8), remote=huge.remote.va + HUGE, rkey=huge.remote.key)
    assert huge.bench.fault()["va"] == huge.remote.va + HUGE


# Re-registration


def modify(bench: Bench, mr: Mr, mask: int, pd: int = 0, base: int = 0, length: int = 0, access: int = 0) -> None:
    bench.command(Command.MODIFY_MKEY, mr.index, mask, mr.key, pd, base, length, access, 0)


def test_rereg_of_the_access(rc):
    modify(rc.bench, rc.remote, Rereg.ACCESS, access=1)
    assert use(rc, WRITE, rc.remote.va, rc.remote.key) == REM_ACCESS


def test_rereg_of_the_pd(rc):
    modify(rc.bench, rc.local, Rereg.PD, pd=2)
    assert use(rc, WRITE, rc.remote.va, rc.remote.key) == LOC_PROT


LESS = {
    "rights": (Rereg.ACCESS, {"access": 1}),
    "PD": (Rereg.PD, {"pd": 2}),
    "range": (Rereg.TRANSLATION, {"base": 0x7000, "length": PAGE}),
}


@pytest.mark.parametrize("lost", LESS)
def test_what_a_rereg_takes_away_a_message_in_progress_loses_too(rc, lost):
    """In the middle of a WRITE: the packets behind it are refused."""
    rc.a.post_send(1, WRITE, rc.local.sge(), remote=rc.remote.va, rkey=rc.remote.key)
    rc.bench.step_until(lambda: rc.b.row().message_offset > 2048)
    mask, changes = LESS[lost]
    modify(rc.bench, rc.remote, mask, **changes)
    rc.bench.run()
    assert rc.a.statuses() == [(1, REM_ACCESS)]
    assert rc.remote.data[3 * PAGE :] != rc.local.data[3 * PAGE :]


def test_a_rereg_of_another_region_leaves_a_message_in_progress_alone(rc):
    rc.a.post_send(1, WRITE, rc.local.sge(), remote=rc.remote.va, rkey=rc.remote.key)
    rc.bench.step_until(lambda: rc.b.row().message_offset > 2048)
    modify(rc.bench, rc.bench.mr(1), Rereg.ACCESS, access=1)
    rc.bench.run()
    assert rc.a.statuses() == [(1, SUCCESS)] and rc.remote.data == rc.local.data


def test_rereg_of_the_memory_takes_every_translation_and_the_old_range(rc):
    use(rc, WRITE, rc.remote.va, rc.remote.key)
    modify(rc.bench, rc.remote, Rereg.TRANSLATION, base=0x7000, length=PAGE)
    entries(rc.bench, rc.remote.index, 0, [mtt_entry(rc.remote.frames[3], True, 0)])
    assert use(rc, WRITE, 0x7010, rc.remote.key) == SUCCESS
    assert rc.remote.data[3 * PAGE + 16 : 3 * PAGE + 24] == rc.local.data[:8]
    assert use(rc, WRITE, rc.remote.va, rc.remote.key) == REM_ACCESS


@pytest.mark.parametrize("mask", [Rereg.TRANSLATION, Rereg.PD, Rereg.ACCESS])
def test_rereg_drains(rc, mask):
    """When it completes, every DMA translated before has moved."""
    rc.write(1, 8)
    rc.bench.step_until(
        lambda: (
            rc.bench.world.mkey[int(rc.bench.device.row.mkey_base) + rc.remote.index].busy_until > rc.bench.world.now
        )
    )
    assert rc.remote.data[:8] != rc.local.data[:8]
    modify(rc.bench, rc.remote, mask, pd=1, base=rc.remote.va, length=PAGE, access=ALL)
    assert rc.remote.data[:8] == rc.local.data[:8]
