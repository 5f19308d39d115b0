"""Any sequence of post, consume, resize and arm on a CQ equals a deque and a flag."""

from collections import deque

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicemu._jit import entry
from nicemu.abi import rings
from nicemu.abi.command import Command, Status
from nicemu.abi.rings import Doorbell, Eqn, doorbell_offset
from nicemu.abi.verbs import AsyncEvent
from nicemu.nic.cq import post_cqe
from tests.nic.testbench import Bench, Cq, Ring

SLOTS = (1, 2, 4, 8)


@entry("int64(int64, int64, int64, int64)")
def post(world, row, wr_id, solicited):
    """One good CQE."""
    return 1 if post_cqe(world, row, wr_id, 5, 0, 0, (0, 0, 0, wr_id, 0), solicited) else 0


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


actions = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.booleans()),
        st.tuples(st.just("consume"), st.integers(1, 4)),
        st.tuples(st.just("resize"), st.sampled_from(SLOTS)),
        st.tuples(st.just("arm"), st.sampled_from((1, 2))),
    ),
    max_size=60,
)


class Model:
    """What a CQ is: entries in order, how many fit, whether an event is due."""

    def __init__(self, slots: int) -> None:
        self.waiting: deque[int] = deque()
        self.slots, self.armed, self.dead, self.events, self.errors = slots, 0, False, 0, 0

    def post(self, wr_id: int, solicited: bool) -> bool:
        if self.dead:
            return False
        if len(self.waiting) == self.slots:
            self.dead, self.errors = True, 1
            return False
        self.waiting.append(wr_id)
        if self.armed == 1 or (self.armed == 2 and solicited):
            self.armed, self.events = 0, self.events + 1
        return True

    def resize(self, slots: int) -> bool:
        if len(self.waiting) > slots:
            return False
        self.slots = slots
        return True


def consume(cq: Cq, count: int) -> list[int]:
    """Take up to ``count`` entries as a library does."""
    found = []
    for _ in range(count):
        head = cq.record.word(0)
        values = rings.CQE.unpack_from(cq.ring.view, head % cq.slots * rings.CQE_BYTES)
        if values[-1] != rings.owner(head, cq.slots):
            break
        found.append(values[0])
        cq.record.word(0, head + 1)
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.sampled_from(SLOTS), todo=actions)
def test_a_cq_is_a_deque(bench: Bench, first: int, todo: list[tuple[str, int]]) -> None:
    cq, model = Cq(bench, 7, first), Model(first)
    row = int(bench.device.row.cq_base) + 7
    world = bench.world.address
    bench.asyncs(), bench.events(Eqn.COMPLETION)
    for wr_id, (action, value) in enumerate(todo):
        if action == "post":
            assert bool(post(world, row, wr_id, int(value))) == model.post(wr_id, bool(value))
        elif action == "consume":
            expected = [model.waiting.popleft() for _ in range(min(value, len(model.waiting)))]
            assert consume(cq, value) == expected
        elif action == "resize":
            ring = Ring(value * rings.CQE_BYTES)
            fits = model.resize(value)
            expect = Status.OK if fits else Status.BAD_PARAM
            bench.command(Command.RESIZE_CQ, 7, ring.address, value, value, expect=expect)
            if fits:
                cq.ring, cq.slots = ring, value
        else:
            bench.device.write_doorbell(doorbell_offset(Doorbell.CQ_ARM, 7), value)
            bench.run_for(1000)
            model.armed = 1 if model.armed == 1 else value
    assert consume(cq, 99) == list(model.waiting)
    assert len(bench.events(Eqn.COMPLETION)) == model.events
    assert bench.asyncs() == [(AsyncEvent.CQ_ERR, 7)] * model.errors
    bench.command(Command.DESTROY_CQ, 7)
