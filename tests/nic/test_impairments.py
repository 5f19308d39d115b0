"""Any schedule of loss, doubling, overtaking, delay and corruption: what each transport promises all the same.

The schedule is drawn from a seed; hypothesis prints the call that replays a failure. RC: as long as no PSN is defeated
more often than ``retry_cnt`` allows, everything ends as on a perfect wire; beyond that with exactly one RETRY_EXC_ERR.
What is defeated takes along what was sent behind it, which comes out of sequence. A doubled packet defeats nobody.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicemu import _jit
from nicemu.abi.verbs import Access, QpState, QpType, WcStatus
from nicemu.wire.opcode import is_response
from tests.nic.packets import DOUBLE, DROP, HOLD, LATE, Wire
from tests.nic.testbench import ALL, Bench, Cq, Mr, Qp, WrOpcode, pair

RIGHTS = ALL | Access.FLUSH_GLOBAL | Access.FLUSH_PERSISTENT
SUCCESS, FLUSHED, RETRY_EXC = int(WcStatus.SUCCESS), int(WcStatus.WR_FLUSH_ERR), int(WcStatus.RETRY_EXC_ERR)
SLOT, LONGEST = 4200, 4000
"""Bytes that an operation has for itself on each side, and of the longest message: four packets."""
SIGNALED = 2
RELIABLE = (
    WrOpcode.SEND, WrOpcode.SEND_WITH_IMM, WrOpcode.RDMA_WRITE, WrOpcode.RDMA_WRITE_WITH_IMM, WrOpcode.RDMA_READ,
    WrOpcode.ATOMIC_FETCH_AND_ADD, WrOpcode.ATOMIC_CMP_AND_SWP, WrOpcode.FLUSH, WrOpcode.ATOMIC_WRITE,
)  # fmt: skip
UNRELIABLE = RELIABLE[:4]
EIGHT = (WrOpcode.ATOMIC_FETCH_AND_ADD, WrOpcode.ATOMIC_CMP_AND_SWP, WrOpcode.ATOMIC_WRITE)
SENDS = (WrOpcode.SEND, WrOpcode.SEND_WITH_IMM)
Program = list[tuple[int, int, int]]
"""(opcode, length, flags) of each operation."""


def programs(opcodes: tuple[WrOpcode, ...], longest: int = LONGEST, size: int = 10) -> st.SearchStrategy[Program]:
    """Fence, solicited, signaled and not: any mixture."""
    flags = st.sampled_from([0, SIGNALED, SIGNALED | 1, SIGNALED | 4])
    return st.lists(st.tuples(st.sampled_from(opcodes), st.integers(0, longest), flags), min_size=1, max_size=size)


@dataclass
class Schedule:
    """What the wire does, from a seed. ``budget``: defeats of a PSN by loss or lateness of its packet, ACK, NAK or
    response, or of one before it after it was sent; None: no limit."""

    seed: int
    rate: float
    kinds: tuple[str, ...]
    budget: int | None = None

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.defeats: Counter[tuple[int, int]] = Counter()
        self.sent: set[tuple[int, int]] = set()

    def __call__(self, row: Any) -> str | None:
        responds = is_response(int(row.opcode))
        asker, psn = int(row.dest_qpn if responds else row.source_qpn), int(row.psn)
        if not responds:
            self.sent.add((asker, psn))
        if self.rng.random() >= self.rate:
            return None
        action = self.rng.choice(self.kinds)
        if action == DOUBLE or self.budget is None:
            return action
        behind = {(who, each) for who, each in self.sent if who == asker and (each - psn) % 2**24 < 2**23}
        hit = behind | {(asker, psn)}
        if any(self.defeats[each] >= self.budget for each in hit):
            return None
        self.defeats.update(hit)
        return action


class Side:
    """A QP that asks, its memory, and what it asks for."""

    def __init__(self, bench: Bench, qp: Qp, peer: Qp, program: Program, cold: bool) -> None:
        pages = (2 * SLOT * len(program) + 4095) // 4096 + 1
        self.qp, self.peer, self.program = qp, peer, program
        self.near, self.far = (bench.mr(pages, RIGHTS, mapped=not cold) for _ in range(2))
        self.before = self.near.fill(qp.number), self.far.fill(qp.number + 10)

    def post(self) -> None:
        """Each operation has places of its own, for packets may be gathered and scattered again."""
        last = len(self.program) - 1
        for index, (opcode, length, flags) in enumerate(self.program):
            near, far = self.places(index)
            if opcode in (*SENDS, WrOpcode.RDMA_WRITE_WITH_IMM):
                self.peer.post_recv(1000 + index, self.far.sge(SLOT, far))
            self.qp.post_send(
                index,
                opcode,
                *([] if opcode == WrOpcode.FLUSH else [self.near.sge(self.bytes_of(index), near)]),
                remote=self.far.va + far,
                rkey=self.far.key,
                flags=flags | (SIGNALED if index == last else 0),
                imm=index,
                compare=1 if opcode == WrOpcode.FLUSH else index,
                swap=length if opcode == WrOpcode.FLUSH else 99,
            )

    def bytes_of(self, index: int) -> int:
        """Bytes that an operation moves."""
        opcode, length, _ = self.program[index]
        return 8 if opcode in EIGHT else 0 if opcode == WrOpcode.FLUSH else length

    def places(self, index: int) -> tuple[int, int]:
        """Offsets of an operation on both sides, neither aligned to a page; remote atomics to eight."""
        return 2 * SLOT * index + index % 7, 2 * SLOT * index + SLOT

    @property
    def after(self) -> tuple[bytes, bytes]:
        """Both memories."""
        return self.near.data, self.far.data


@dataclass
class End:
    """How it ended: (memory, completions) of each direction, and the states of both QPs."""

    memory: list[tuple[bytes, bytes]]
    completions: list[list[tuple[int, ...]]]
    states: list[int]
    sides: list[Side]


KEYS = ("wr_id", "status", "opcode", "byte_len", "imm", "flags")


Decide = Callable[[Any], str | None]


def run(there: Program, back: Program, schedule: Decide | None, retry_cnt: int = 7, cold: bool = False) -> End:
    """Both QPs run their programs at the same time."""
    return run_on(Bench(), (there, back), schedule, retry_cnt, cold)


def run_on(
    bench: Bench, programs: tuple[Program, Program], schedule: Decide | None, retry_cnt: int = 7, cold: bool = False
) -> End:
    """The same on a NIC with other firmware."""
    values = dict(TIMEOUT=5, MIN_RNR_TIMER=5, RETRY_CNT=retry_cnt, RNR_RETRY=7, ACCESS=RIGHTS)
    a, b = pair(bench, **values)
    sides = [Side(bench, a, b, programs[0], cold), Side(bench, b, a, programs[1], cold)]
    for side in sides:
        side.post()
    regions = {mr.key: mr for side in sides for mr in (side.near, side.far)}
    wire = Wire(bench, schedule or (lambda row: None))
    while wire.step():
        for fault in bench.faults() if cold else []:
            mr: Mr = regions[fault["key"]]
            mr.map((fault["va"] - mr.va) // 4096, 1)
            bench.resume(fault["token"])
    found = [[tuple(cqe[key] for key in KEYS) for cqe in qp.cq.poll()] for qp in (a, b)]
    end = End([side.after for side in sides], found, [int(qp.row().state) for qp in (a, b)], sides)
    assert bench.world.control[0].violations == 0
    bench.world.close()
    return end


def same(one: End, other: End) -> None:
    """Same memory, same statuses, same order of the completions of each queue."""
    assert one.states == other.states
    for mine, theirs in zip(one.completions, other.completions, strict=True):
        for receives in (False, True):
            assert [c for c in mine if (c[2] >= 128) == receives] == [c for c in theirs if (c[2] >= 128) == receives]
    assert one.memory == other.memory


SEEDS = st.integers(0, 1 << 32)
RATES = st.sampled_from([0.02, 0.1, 0.3, 0.6])
EVERYTHING = (DROP, DOUBLE, LATE, HOLD)
QUICK = settings(
    max_examples=100 if _jit.JIT else 25, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
LONG = settings(QUICK, max_examples=600)


@given(there=programs(RELIABLE), back=programs(RELIABLE, size=5), seed=SEEDS, rate=RATES, retry_cnt=st.integers(1, 7))
@QUICK
def test_rc_ends_as_on_a_perfect_wire_unless_a_psn_is_defeated_too_often(there, back, seed, rate, retry_cnt):
    schedule = Schedule(seed, rate, EVERYTHING, retry_cnt)
    same(run(there, back, schedule, retry_cnt), run(there, back, None))


@pytest.mark.slow
@given(there=programs(RELIABLE), back=programs(RELIABLE, size=5), seed=SEEDS, rate=RATES, retry_cnt=st.integers(1, 3),
       cold=st.booleans())  # fmt: skip
@LONG
def test_rc_ends_as_on_a_perfect_wire_six_hundred_times(there, back, seed, rate, retry_cnt, cold):
    kinds = (DROP, DOUBLE, HOLD) if cold else EVERYTHING
    same(run(there, back, Schedule(seed, rate, kinds, retry_cnt), retry_cnt, cold), run(there, back, None))


@given(there=programs(RELIABLE), back=programs(RELIABLE, size=5), seed=SEEDS, rate=RATES, retry_cnt=st.integers(0, 7))
@QUICK
def test_rc_never_minds_doubled_packets(there, back, seed, rate, retry_cnt):
    same(run(there, back, Schedule(seed, rate, (DOUBLE,)), retry_cnt), run(there, back, None))


@given(there=programs(RELIABLE), back=programs(RELIABLE, size=5), seed=SEEDS, rate=RATES, retry_cnt=st.integers(1, 7))
@QUICK
def test_nor_while_pages_fault_one_by_one(there, back, seed, rate, retry_cnt):
    """A fault costs no retry of either kind that is not without end."""
    schedule = Schedule(seed, rate, (DROP, DOUBLE, HOLD), retry_cnt)
    same(run(there, back, schedule, retry_cnt, cold=True), run(there, back, None))


def check_order(end: End) -> None:
    """Each queue: successes, then at most one error of its own, then only what is flushed, all in post order."""
    for side, found, state in zip(end.sides, end.completions, end.states, strict=True):
        sends, receives = ([c for c in found if (c[2] >= 128) == kind] for kind in (False, True))
        failed = [c for c in sends if c[1] not in (SUCCESS, FLUSHED)]
        assert [c[1] for c in failed] in ([], [RETRY_EXC])
        statuses = [c[1] for c in sends]
        assert statuses == sorted(statuses, key=[SUCCESS, RETRY_EXC, FLUSHED].index)
        assert [c[1] for c in receives] == sorted(c[1] for c in receives) and {c[1] for c in receives} <= {0, FLUSHED}
        for queue in (sends, receives):
            assert [c[0] for c in queue] == sorted({c[0] for c in queue})
        assert state == (QpState.ERR if failed else QpState.RTS)
        if failed:
            first = failed[0][0]
            assert [c[0] for c in sends if c[1] != SUCCESS] == list(range(first, len(side.program)))


def check_bytes(end: End, perfect: End) -> None:
    """What succeeded is there; of the rest each byte is as before or as it should be; all else is untouched."""
    for side, (near, far), (near_right, far_right), found in zip(
        end.sides, end.memory, perfect.memory, end.completions, strict=True
    ):
        for was, now, right in ((side.before[0], near, near_right), (side.before[1], far, far_right)):
            assert all(c in (a, b) for a, b, c in zip(was, right, now, strict=True))
        bad = [c[0] for c in found if c[2] < 128 and c[1] != SUCCESS]
        for index in range(min(bad, default=len(side.program))):
            place_near, place_far = side.places(index)
            near_slot, far_slot = slice(place_near, place_near + LONGEST), slice(place_far, place_far + LONGEST)
            assert near[near_slot] == near_right[near_slot] and far[far_slot] == far_right[far_slot]


@given(there=programs(RELIABLE), back=programs(RELIABLE, size=3), seed=SEEDS, rate=st.sampled_from([0.3, 0.6, 0.9]),
       retry_cnt=st.integers(0, 2))  # fmt: skip
@QUICK
def test_beyond_that_one_retry_exceeded_and_the_rest_is_flushed_in_order(there, back, seed, rate, retry_cnt):
    end = run(there, back, Schedule(seed, rate, EVERYTHING), retry_cnt)
    check_order(end)
    check_bytes(end, run(there, back, None))


@given(there=programs(RELIABLE), seed=SEEDS, retry_cnt=st.integers(0, 7), data=st.data())
@QUICK
def test_a_psn_that_never_arrives_ends_in_one_retry_exceeded(there, seed, retry_cnt, data):
    """Of one request every packet with its first PSN is lost; the others are doubled and held."""
    back: Program = [(WrOpcode.RDMA_WRITE, 0, SIGNALED)]
    perfect = run(there, back, None)
    signaled = [index for index, (_, _, flags) in enumerate(there) if flags & SIGNALED or index == len(there) - 1]
    victim = data.draw(st.sampled_from(range(len(there))))
    counts = [1 if op in EIGHT or op == WrOpcode.FLUSH else max(1, -(-length // 1024)) for op, length, _ in there]
    lost = Qp.psn + sum(counts[:victim]) & 0xFFFFFF
    schedule = Schedule(seed, 0.1, (DOUBLE, HOLD))

    def decide(row: Any) -> str | None:
        if row.source_qpn == 2 and row.psn == lost and not is_response(int(row.opcode)):
            return DROP
        return schedule(row)

    end = run(there, back, decide, retry_cnt)
    check_order(end)
    check_bytes(end, perfect)
    sends = [c for c in end.completions[0] if c[2] < 128]
    assert [c[0] for c in sends if c[1] == SUCCESS] == [index for index in signaled if index < victim]
    assert [c[0] for c in sends if c[1] != SUCCESS] == list(range(victim, len(there)))


# Unreliable transports ------------------------------------------------------------------------------------------------


class Unreliable:
    """Messages of an unreliable QP with immediate data, so that each completion says which message it is."""

    def __init__(self, kind: QpType, lengths: list[int], schedule: Schedule) -> None:
        bench = Bench()
        self.grh = 40 if kind == QpType.UD else 0
        self.lengths, room = lengths, 4096 + 64
        pages = (len(lengths) * 2 + 1) * room // 4096 + 2
        self.near, self.far = bench.mr(pages), bench.mr(pages)
        self.source, self.before = self.near.fill(1), self.far.fill(2)
        if kind == QpType.UC:
            a, b = pair(bench, kind=kind)
        else:
            a, b = (Qp(bench, n, Cq(bench, n), kind=kind) for n in (2, 3))
            a.ready(), b.ready()
        ah = bench.ah(1, bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1))) if self.grh else 0
        for index in range(2 * len(lengths)):
            b.post_recv(index, self.far.sge(room, index * room + 1))
        for index, length in enumerate(lengths):
            way = dict(qpn=3, qkey=0x11, rkey=ah) if self.grh else {}
            a.post_send(index, WrOpcode.SEND_WITH_IMM, self.near.sge(length, index * 64), imm=index, **way)
        Wire(bench, schedule).run()
        self.statuses, self.received = a.statuses(), b.cq.poll()
        self.room, self.after, self.states = room, self.far.data, (a.row().state, b.row().state)
        bench.world.close()

    def check_whole(self) -> None:
        """Every completion holds one whole message, receives are used in order, and no other byte changed."""
        assert self.statuses == [(index, SUCCESS) for index in range(len(self.lengths))]
        assert self.states == (QpState.RTS, QpState.RTS)
        assert [cqe["wr_id"] for cqe in self.received] == list(range(len(self.received)))
        expected = bytearray(self.before)
        for cqe in self.received:
            at = cqe["wr_id"] * self.room + 1
            length = self.lengths[cqe["imm"]]
            assert (cqe["status"], cqe["byte_len"]) == (SUCCESS, length + self.grh)
            data = self.source[cqe["imm"] * 64 : cqe["imm"] * 64 + length]
            assert self.after[at + self.grh : at + self.grh + length] == data
            expected[at : at + self.room] = self.after[at : at + self.room]
        at = len(self.received) * self.room + 1  # a receive that a message in progress has taken
        expected[at : at + self.room] = self.after[at : at + self.room]
        assert self.after == bytes(expected)


LENGTHS = {QpType.UC: st.integers(0, LONGEST), QpType.UD: st.integers(0, 4096)}


@pytest.mark.parametrize("kind", [QpType.UC, QpType.UD], ids=lambda kind: kind.name)
@given(data=st.data(), seed=SEEDS, rate=RATES)
@QUICK
def test_unreliable_messages_arrive_whole_or_not_at_all(kind, data, seed, rate):
    """Whatever the wire does. A doubled packet may bring a message twice: neither transport can tell."""
    lengths = data.draw(st.lists(LENGTHS[kind], min_size=1, max_size=12))
    run = Unreliable(kind, lengths, Schedule(seed, rate, EVERYTHING))
    run.check_whole()


@pytest.mark.parametrize("kind", [QpType.UC, QpType.UD], ids=lambda kind: kind.name)
@given(data=st.data(), seed=SEEDS, rate=RATES)
@QUICK
def test_loss_and_delay_keep_unreliable_messages_in_order(kind, data, seed, rate):
    lengths = data.draw(st.lists(LENGTHS[kind], min_size=1, max_size=12))
    run = Unreliable(kind, lengths, Schedule(seed, rate, (DROP, HOLD)))
    run.check_whole()
    got = [cqe["imm"] for cqe in run.received]
    assert got == sorted(set(got))
