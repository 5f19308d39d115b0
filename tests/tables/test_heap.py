"""The event heap against heapq: (time, order of pushing), never the past."""

import heapq

from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu import _jit
from nicemu._jit import entry
from nicemu.tables import World
from nicemu.tables.heap import pop, push_packet, schedule
from nicemu.tables.world import Capacity

SMALL = Capacity(qps=1, cqs=1, mkeys=1, sq_entries=8, packets=8, frames=8, nodes=8, violations=8, trace=8)
pop_python = getattr(pop, "py_func", pop)


@entry("void(int64)")
def pop_one(world):
    """``pop`` for Python."""
    pop(world)


OPERATIONS = st.lists(st.one_of(st.integers(0, 50), st.none(), st.integers(2**61, 2**61 + 2)), max_size=120)


def take(world):
    """The first event as (time, kind), removed."""
    event = world.event[0]
    found = int(event.time), int(event.kind), int(event.a), int(event.b)
    world.control[0].now = max(world.now, found[0])
    pop_one(world.address)
    return found


@given(OPERATIONS)
@settings(max_examples=150, deadline=None)
def test_events_come_in_the_order_of_heapq(operations):
    world, model, count = World(SMALL), [], 0
    now = 0
    for operation in operations:
        if operation is not None:
            count += 1
            schedule(world.address, operation, count, count * 7, -count)
            heapq.heappush(model, (max(operation, now), count, count * 7, -count))
        elif model:
            expected = heapq.heappop(model)
            now = max(now, expected[0])
            assert take(world) == expected
    while model:
        assert take(world) == heapq.heappop(model)
    assert world.control[0].pending == 0
    world.close()


@entry("void(int64, int64, int64, int64)")
def send(world, lane, time, p):
    """``push_packet`` for Python."""
    push_packet(world, lane, time, 7, p, -p)


@given(st.lists(st.one_of(st.tuples(st.integers(0, 3), st.integers(0, 30)), st.none()), max_size=60))
@settings(max_examples=100, deadline=None)
def test_packets_of_lanes_come_in_the_order_of_heapq(operations):
    """(lane, time), lane 0: an event that is no packet's; None: the next one happens. Late packets overtake nobody."""
    world, model, count, now = World(Capacity(qps=1, packets=64)), [], 0, 0
    for operation in [*operations, *[None] * len(operations)]:
        if operation is None:
            if model:
                expected = heapq.heappop(model)
                now = max(now, expected[0])
                assert take(world) == (expected[0], 7, expected[1], -expected[1])
            continue
        lane, time = operation
        count += 1
        if lane == 0:
            schedule(world.address, time, 7, count, -count)
        else:
            send(world.address, lane, time, count)
        heapq.heappush(model, (max(time, now), count))
    assert not model and world.control[0].pending == 0
    world.close()


def test_an_event_in_the_past_happens_now():
    world = World(SMALL)
    world.control[0].now = 1000
    schedule(world.address, 3, 1, 0, 0)
    assert world.event[0].time == 1000


def test_a_full_heap_traps_instead_of_overwriting(monkeypatch):
    world = World(SMALL)
    world.control[0].pending = (1 << 20) - 8
    schedule(world.address, 3, 1, 0, 0)
    assert world.control[0].trap != 0 and world.control[0].pending == (1 << 20) - 8
    assert "HEAP_FULL" in str(world.trap_error())


def test_worlds_forget_themselves_when_closed():
    world = World(SMALL)
    address = world.address
    world.close()
    assert address not in _jit.WORLDS
