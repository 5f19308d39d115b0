"""The world: lazily committed tables, slices of NICs, traps as messages, the event log."""

import pytest

from nicemu._jit import entry
from nicemu.tables import World, records, trace, units
from nicemu.tables.records import Slot, Trap
from nicemu.tables.trace import MAX_TRACE, Ev
from nicemu.tables.world import Capacity

SMALL = Capacity(qps=1, cqs=1, mkeys=1, sq_entries=8, packets=8, frames=8, nodes=8, violations=8)


@entry("void(int64, int64, int64, int64)")
def log(world, kind, a, b):
    """``trace`` for Python."""
    trace.trace(world, kind, 1, a, b, 3, 4)


def resident() -> int:
    """Bytes of memory this process uses."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_world_of_full_size_costs_almost_nothing():
    before = resident()
    world = World(Capacity(nics=2))
    assert resident() - before < 32 << 20
    assert sum(table.nbytes for table in world.tables) > 1 << 30
    world.close()


def test_every_table_has_its_null_row_and_stays_where_it_is():
    world = World(SMALL)
    addresses = [table.ctypes.data for table in world.tables]
    assert len(addresses) == len(Slot) and all(len(table) >= 1 for table in world.tables)
    world.qp[1].epsn = 7
    assert [table.ctypes.data for table in world.tables] == addresses and world.qp.epsn[1] == 7


NARROW = {Slot.FRAME: 40, Slot.FRAME_STAMP: 12, Slot.QP: 9 * 64, Slot.SQ_ENTRY: 48, Slot.EVENT: 32, Slot.BUCKET: 4,
          Slot.COARSE: 16, Slot.SEGMENT: 48,
          Slot.PACKET: 5 * 64}  # fmt: skip
"""Tables with a row for each page, QP, event or time: how many bytes a row may have."""
BYTES = (Slot.PAYLOAD, Slot.SRQ_WQE, Slot.CAPTURED, Slot.TAG_WQE, Slot.HASH_KEY)


@pytest.mark.parametrize(
    "slot",
    [slot for slot in Slot if slot not in (*BYTES, Slot.HOOK, Slot.NODE)],
)
def test_state_fields_are_64_bits_where_rows_are_few(slot):
    dtype = getattr(records, slot.name)
    narrow = [name for name in dtype.names if dtype.fields[name][0] != "int64"]
    assert not narrow or slot in NARROW


@pytest.mark.parametrize("slot, most", NARROW.items())
def test_a_row_of_a_bulk_table_is_small(slot, most):
    """In bytes: what idle QPs and mapped pages cost follows from these."""
    assert getattr(records, slot.name).itemsize <= most


@pytest.mark.parametrize(
    "code, text",
    [
        (int(Slot.QP) + 1, "table QP: row 9 out of range"),
        (Trap.EVENTS_EXHAUSTED, "EVENTS_EXHAUSTED: row 9"),
        (Trap.PACKETS_EXHAUSTED, "PACKETS_EXHAUSTED: row 9"),
    ],
)
def test_a_trap_says_what_and_where_and_when(code, text):
    world = World(SMALL)
    control = world.control[0]
    control.trap, control.trap_row, control.now = int(code), 9, 123
    assert str(world.trap_error()) == f"trap at 123 ns: {text}"


def test_the_log_keeps_what_happened_in_order():
    world = World(SMALL)
    log(world.address, Ev.SEND, 1, 2)
    assert world.control[0].trace_count == 0
    world.control[0].trace = 1
    log(world.address, Ev.SEND, 1, 2)
    log(world.address, Ev.CQE, 5, 6)
    rows = world.trace[: int(world.control[0].trace_count)]
    assert [(int(r.kind), int(r.nic), int(r.a), int(r.b), int(r.c), int(r.d)) for r in rows] == [
        (Ev.SEND, 1, 1, 2, 3, 4), (Ev.CQE, 1, 5, 6, 3, 4)]  # fmt: skip


def test_the_log_never_runs_over_its_table():
    world = World(SMALL)
    world.control[0].trace, world.control[0].trace_count = 1, MAX_TRACE
    for _ in range(200):
        log(world.address, Ev.SEND, 1, 2)
    assert world.control[0].trace_count <= len(world.trace) and world.control[0].trap == 0


def test_every_unit_has_a_number_of_its_own():
    numbers = [value for name, value in vars(units).items() if name.isupper()]
    assert len(set(numbers)) == len(numbers) and max(numbers) < SMALL.units
