"""The timing wheel against heapq: (time, order of scheduling), never the past."""

import heapq

from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu import _jit
from nicemu._jit import entry
from nicemu.tables import World
from nicemu.tables.wheel import LAST_TIME, WINDOW_NS, next_time, pop, schedule
from nicemu.tables.world import Capacity

SMALL = Capacity(qps=1, cqs=1, mkeys=1, sq_entries=8, packets=8, frames=8, nodes=8, violations=8, trace=8)
DELAYS = st.one_of(st.integers(0, 50), st.integers(0, 2 * WINDOW_NS), st.integers(0, 62).map(lambda bits: 1 << bits),
                   st.integers(0, 1 << 62))  # fmt: skip
OPERATIONS = st.lists(st.one_of(DELAYS, st.none(), st.tuples(st.integers(0, 1 << 40))), max_size=150)


@entry("int64(int64)")
def pop_one(world):
    """``pop`` for Python."""
    return pop(world)


@entry("int64(int64)")
def first_time(world):
    """``next_time`` for Python."""
    return next_time(world, LAST_TIME)


def take(world):
    """The first event as (time, kind, a, b), removed."""
    due = first_time(world.address)
    event = world.event[pop_one(world.address)]
    assert due == event.time
    found = int(event.time), int(event.kind), int(event.a), int(event.b)
    world.control[0].now = max(world.now, found[0])
    return found


@given(OPERATIONS)
@settings(max_examples=200, deadline=None)
def test_events_come_in_the_order_of_heapq(operations):
    """A number: schedule an event so many ns from now; None: the first one happens; (number,): the clock goes on by
    itself, up to the first event."""
    world, model, count, now = World(SMALL), [], 0, 0
    for operation in [*operations, *[None] * len(operations)]:
        if isinstance(operation, tuple):
            now = min(now + operation[0], model[0][0] if model else LAST_TIME)
            world.control[0].now = now
        elif operation is not None:
            count += 1
            schedule(world.address, now + operation, count, count * 7, -count)
            heapq.heappush(model, (min(now + operation, LAST_TIME), count, count * 7, -count))
        elif model:
            expected = heapq.heappop(model)
            now = max(now, expected[0])
            assert take(world) == expected
    assert not model and world.control[0].pending == 0 and not world.pending.bits.any()
    world.close()


def test_an_event_in_the_past_happens_now():
    world = World(SMALL)
    world.control[0].now = 1000
    schedule(world.address, 3, 1, 0, 0)
    assert first_time(world.address) == 1000


def test_rows_are_used_again():
    world = World(SMALL)
    for time in range(1000):
        schedule(world.address, time * 100, 1, 0, 0)
        take(world)
    assert world.control[0].event_next == 2


def test_too_many_events_trap_instead_of_overwriting():
    world = World(Capacity(qps=1, events=4))
    for number in range(4):
        schedule(world.address, 3, number, 0, 0)
    assert world.control[0].pending == 3
    assert "EVENTS_EXHAUSTED: row 4" in str(world.trap_error())
    assert [take(world)[1] for _ in range(3)] == [0, 1, 2]


def test_worlds_forget_themselves_when_closed():
    world = World(SMALL)
    address = world.address
    world.close()
    assert address not in _jit.WORLDS
