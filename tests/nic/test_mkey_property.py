"""No access through a region or a window ever lands outside of it, whatever base, length, skew and request."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicemu.abi.command import Command, mtt_entry
from nicemu.abi.verbs import WcStatus
from tests.nic.conftest import connected
from tests.nic.testbench import ALL, Bench, WrOpcode
from tests.nic.windows import BIND, READ, WRITE, ZERO_BASED, Window

PAGE, PAGES = 4096, 4
U64 = (1 << 64) - 1
NEAR = [0, PAGE, 0x10_0000_0000, 1 << 47, (1 << 63) - 3 * PAGE, 1 << 63, U64 - 4 * PAGE]
bases = st.one_of(st.sampled_from(NEAR), st.integers(0, U64)).flatmap(
    lambda base: st.integers(max(base - 2 * PAGE, 0), min(base + 2 * PAGE, U64))
)
requests = st.tuples(st.integers(-PAGE, 3 * PAGE), st.integers(1, 2 * PAGE))
opcodes = st.sampled_from([WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ])


def signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


class Region:
    """A region of ``length`` bytes at ``base``, whose first byte is byte ``start`` of four pages."""

    def __init__(self, bench: Bench, base: int, start: int, length: int) -> None:
        bench.__init__()  # type: ignore[misc]
        self.rc = rc = connected(bench)
        self.before = rc.remote.data
        self.base, self.start, self.length, self.key = base, start, length, 70 << 8
        # as a program's region may not run over the end of the address space, or of its half
        self.real = base + length <= U64 and (base >> 63) == (base + length - 1) >> 63
        bench.command(Command.CREATE_MKEY, 70, self.key, bench.pd, signed(base), length, ALL | BIND, 0, 70,
                      (start - base) & PAGE - 1)  # fmt: skip
        count = (start % PAGE + length + PAGE - 1) // PAGE
        frames = rc.remote.frames[start // PAGE : start // PAGE + count]
        rc.remote.map()  # the mailbox is used again below
        words = b"".join(mtt_entry(frame, True, 0).to_bytes(8, "little") for frame in frames)
        bench.mailbox[: len(words)] = list(words)
        bench.command(Command.UPDATE_MTT, 70, 0, len(frames))

    def ask(self, opcode: int, key: int, va: int, length: int) -> int:
        self.rc.a.post_send(1, opcode, self.rc.local.sge(length), remote=va & U64, rkey=key)
        self.rc.bench.run()
        ((_, status),) = self.rc.a.statuses()
        return status

    def changed_outside(self, first: int, length: int) -> bool:
        """A byte of the four pages that is not in [first, first + length) is another now."""
        after = self.rc.remote.data
        return after[:first] != self.before[:first] or after[first + length :] != self.before[first + length :]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=bases, start=st.integers(0, PAGE), length=st.integers(1, 3 * PAGE), request=requests, opcode=opcodes)
def test_a_region_is_reached_exactly_in_its_range(bench, base, start, length, request, opcode):
    region = Region(bench, base, start, length)
    at, size = request
    status = region.ask(opcode, region.key, base + at, size)
    inside = at >= 0 and at + size <= length and region.real
    if region.real:
        assert status == (WcStatus.SUCCESS if inside else WcStatus.REM_ACCESS_ERR)
    wrote = inside and opcode == WrOpcode.RDMA_WRITE
    assert not region.changed_outside(start + at if wrote else 0, size if wrote else 0)
    assert bench.faults() == []
    if inside and opcode == WrOpcode.RDMA_READ:
        assert region.rc.local.data[:size] == region.before[start + at : start + at + size]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=bases, start=st.integers(0, PAGE), window=requests, request=requests, opcode=opcodes, zero=st.booleans())
def test_a_window_is_reached_exactly_in_its_range(bench, base, start, window, request, opcode, zero):
    length = 2 * PAGE
    region = Region(bench, base, start, length)
    offset, width = window
    mw = Window(bench, 2)
    access = READ | WRITE | (ZERO_BASED if zero else 0)
    bound = mw.bind(region.rc.b, region.rc.remote, lkey=region.key, va=(base + offset) & U64, length=width,
                    access=access)  # fmt: skip
    if region.real:
        assert (bound == 0) == (offset >= 0 and offset + width <= length)
    if bound != 0:
        return
    at, size = request
    status = region.ask(opcode, mw.key, at if zero else base + offset + at, size)
    inside = at >= 0 and at + size <= width
    assert status == (WcStatus.SUCCESS if inside else WcStatus.REM_ACCESS_ERR)
    wrote = inside and opcode == WrOpcode.RDMA_WRITE
    assert not region.changed_outside(start + offset + at if wrote else 0, size if wrote else 0)
