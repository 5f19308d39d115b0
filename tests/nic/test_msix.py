"""MSI-X beyond mask and pending: function mask, moderation by count and time, a message that gets lost."""

import pytest

from nicemu.abi.command import Command
from nicemu.abi.rings import Doorbell, Eqn, doorbell_offset
from nicemu.config import NicProfile
from tests.nic.testbench import Bench


def quiet(bench):
    """Armed, without news."""
    bench.run_for(10_000)
    vectors(bench)
    return bench


def vectors(bench):
    """MSI-X vectors since the last call."""
    found, bench.interrupts = [vector for _, vector in bench.interrupts], []
    return found


def nop(bench, slot=0):
    bench.submit(Command.NOP, slot=slot)
    bench.run_for(5_000)


def arm(bench, eqn):
    bench.device.write_doorbell(doorbell_offset(Doorbell.EQ_ARM, eqn), 0)
    bench.run_for(5_000)


def moderated(count, time_ns):
    return quiet(Bench(NicProfile(interrupt_moderation={"count": count, "time_ns": time_ns})))


@pytest.fixture
def still(bench):
    return quiet(bench)


def msix(bench, vector):
    return bench.world.msix[int(bench.device.row.eq_base) + vector]


def test_the_function_mask_holds_every_vector(still):
    still.device.mask_function(True)
    nop(still)
    assert vectors(still) == [] and msix(still, Eqn.COMMAND).pending == 1
    still.device.mask_function(False)
    still.run_for(5_000)
    assert vectors(still) == [Eqn.COMMAND]


def test_a_vector_masked_by_itself_stays_masked_when_the_function_is_unmasked(still):
    still.device.mask_vector(Eqn.COMMAND, True)
    still.device.mask_function(True)
    nop(still)
    still.device.mask_function(False)
    still.run_for(5_000)
    assert vectors(still) == []
    still.device.mask_vector(Eqn.COMMAND, False)
    still.run_for(5_000)
    assert vectors(still) == [Eqn.COMMAND]


def test_a_vector_unmasked_under_the_function_mask_stays_pending(still):
    still.device.mask_vector(Eqn.COMMAND, True)
    nop(still)
    still.device.mask_function(True)
    still.device.mask_vector(Eqn.COMMAND, False)
    still.run_for(5_000)
    assert vectors(still) == []
    still.device.mask_function(False)
    still.run_for(5_000)
    assert vectors(still) == [Eqn.COMMAND]


def test_a_message_on_its_way_when_the_function_is_masked_becomes_pending(still):
    still.submit(Command.NOP)
    still.run_for(int(still.device.row.doorbell_ns + still.device.row.command_ns) + 10)
    still.device.mask_function(True)
    still.run_for(5_000)
    assert vectors(still) == [] and msix(still, Eqn.COMMAND).pending == 1


def test_moderation_is_off_unless_asked_for(still):
    nop(still)
    assert vectors(still) == [Eqn.COMMAND] and still.device.row.interrupts_coalesced == 0


def test_a_message_goes_out_at_the_count():
    bench = moderated(3, 1_000_000)
    for slot in range(2):
        nop(bench, slot)
    assert vectors(bench) == []
    nop(bench, 2)
    assert vectors(bench) == [Eqn.COMMAND]
    assert bench.device.row.interrupts_coalesced == 2


def test_or_so_long_after_the_first_event():
    bench = moderated(3, 100_000)
    bench.log()
    nop(bench)
    nop(bench, 1)
    bench.run()
    times = [(kind.name, time) for kind, time, *_ in bench.trace() if kind.name in ("EQE", "INTERRUPT")]
    (first, _, (_, message)) = times
    assert message == first[1] + 100_000 + bench.device.row.interrupt_ns
    assert vectors(bench) == [Eqn.COMMAND]


def test_the_time_alone_moderates():
    bench = moderated(0, 100_000)
    for slot in range(10):
        nop(bench, slot)
    assert vectors(bench) == []
    bench.run()
    assert vectors(bench) == [Eqn.COMMAND]


def test_a_message_sent_by_count_turns_the_timer_off():
    bench = moderated(2, 500_000)
    nop(bench)
    nop(bench, 1)
    assert vectors(bench) == [Eqn.COMMAND]
    bench.run_for(2_000_000)
    assert vectors(bench) == []


def test_vectors_are_moderated_each_by_itself():
    bench = moderated(2, 50_000_000)
    nop(bench)
    row = bench.device.row
    assert msix(bench, Eqn.COMMAND).coalesced == 1 and msix(bench, Eqn.ASYNC).coalesced == 0
    assert row.moderation_count == 2


def test_a_masked_vector_is_not_moderated_but_pending():
    bench = moderated(5, 1_000_000)
    bench.device.mask_vector(Eqn.COMMAND, True)
    nop(bench)
    assert msix(bench, Eqn.COMMAND).pending == 1
    bench.device.mask_vector(Eqn.COMMAND, False)
    bench.run_for(5_000)
    assert vectors(bench) == [Eqn.COMMAND]


def test_a_count_without_a_time_is_refused():
    with pytest.raises(ValueError, match="time_ns"):
        NicProfile(interrupt_moderation={"count": 3, "time_ns": 0})
