"""Event queues and MSI-X: owner words, arming, mask and pending bits, lost events."""

import pytest

from nicemu.abi.command import Command
from nicemu.abi.rings import Doorbell, EqeType, Eqn, doorbell_offset
from tests.nic.testbench import Ring


def nop(bench, slot=0):
    """A NOP command: one EQE on the command queue."""
    bench.submit(Command.NOP, slot=slot)
    bench.run_for(10_000)


def vectors(bench):
    """MSI-X vectors since the last call."""
    found, bench.interrupts = [vector for _, vector in bench.interrupts], []
    return found


@pytest.fixture
def quiet(bench):
    """A bench whose queues are armed and without news."""
    bench.run_for(10_000)
    vectors(bench)
    return bench


def arm(bench, eqn):
    """Arm and let the doorbell arrive."""
    bench.device.write_doorbell(doorbell_offset(Doorbell.EQ_ARM, eqn), 0)
    bench.run_for(10_000)


def test_an_armed_queue_interrupts_once_for_many_events(quiet):
    for slot in range(5):
        quiet.submit(Command.NOP, slot=slot)
    quiet.run_for(10_000)
    assert vectors(quiet) == [Eqn.COMMAND]
    assert [words[2] for words in quiet.events(Eqn.COMMAND)] == list(range(5))


def test_events_after_the_interrupt_are_silent_until_armed_again(quiet):
    nop(quiet)
    vectors(quiet)
    nop(quiet)
    assert vectors(quiet) == []


def test_arming_with_an_event_waiting_interrupts_at_once(quiet):
    nop(quiet)
    vectors(quiet)
    nop(quiet)
    arm(quiet, Eqn.COMMAND)
    assert vectors(quiet) == [Eqn.COMMAND]


def test_arming_an_empty_queue_waits_for_the_next_event(quiet):
    nop(quiet)
    quiet.events(Eqn.COMMAND)
    quiet.run_for(10_000)
    vectors(quiet)
    assert vectors(quiet) == []
    nop(quiet)
    assert vectors(quiet) == [Eqn.COMMAND]


def test_a_masked_vector_stays_pending_and_fires_when_unmasked(quiet):
    quiet.device.mask_vector(Eqn.COMMAND, True)
    nop(quiet)
    assert vectors(quiet) == []
    quiet.device.mask_vector(Eqn.COMMAND, False)
    quiet.run_for(10_000)
    assert vectors(quiet) == [Eqn.COMMAND]
    quiet.run_for(10_000)
    assert vectors(quiet) == []


def test_a_message_masked_on_its_way_becomes_pending(quiet):
    quiet.submit(Command.NOP)
    quiet.run_for(int(quiet.device.row.doorbell_ns + quiet.device.row.command_ns) + 10)
    quiet.device.mask_vector(Eqn.COMMAND, True)
    quiet.run_for(10_000)
    assert vectors(quiet) == []
    quiet.device.mask_vector(Eqn.COMMAND, False)
    quiet.run_for(10_000)
    assert vectors(quiet) == [Eqn.COMMAND]


def test_masking_and_unmasking_around_a_message_in_flight_sends_it_once(quiet):
    quiet.submit(Command.NOP)
    quiet.run_for(int(quiet.device.row.doorbell_ns + quiet.device.row.command_ns) + 10)
    quiet.device.mask_vector(Eqn.COMMAND, True)
    quiet.device.mask_vector(Eqn.COMMAND, False)
    quiet.run_for(10_000)
    assert vectors(quiet) == [Eqn.COMMAND]


def test_unmasking_without_news_is_silent(quiet):
    quiet.device.mask_vector(Eqn.COMMAND, True)
    quiet.device.mask_vector(Eqn.COMMAND, False)
    quiet.run_for(10_000)
    assert vectors(quiet) == []


def test_other_vectors_are_not_masked(quiet):
    quiet.device.mask_vector(Eqn.ASYNC, True)
    nop(quiet)
    assert vectors(quiet) == [Eqn.COMMAND]


def test_owner_words_alternate_with_the_passes(quiet):
    ring, record = Ring(4 * 64), Ring(16)
    quiet.device.attach_eq(Eqn.COMMAND, ring.address, 4, record.address)
    for count in range(11):
        nop(quiet)
        owner = int.from_bytes(ring.view[count % 4 * 64 + 60 :][:4], "little")
        assert owner == (count // 4 + 1) % 2
        record.word(0, count + 1)


def test_a_full_queue_loses_events_and_counts_them(quiet):
    ring, record = Ring(4 * 64), Ring(16)
    quiet.device.attach_eq(Eqn.COMMAND, ring.address, 4, record.address)
    for _ in range(6):
        nop(quiet)
    row = quiet.world.eq[int(quiet.device.row.eq_base) + Eqn.COMMAND]
    assert (row.produced, row.lost) == (4, 2)


def test_the_interrupt_comes_interrupt_ns_after_the_event(quiet):
    quiet.log()
    nop(quiet)
    times = {kind.name: time for kind, time, *_ in quiet.trace()}
    assert times["INTERRUPT"] - times["EQE"] == quiet.device.row.interrupt_ns


@pytest.mark.parametrize(
    "offset",
    [
        doorbell_offset(9, 1),
        doorbell_offset(Doorbell.SEND, 0),
        doorbell_offset(Doorbell.CQ_ARM, (1 << 21) - 1),
        (1 << 40) + 8,
        doorbell_offset(Doorbell.EQ_ARM, 64),
        doorbell_offset(Doorbell.SEND, 4096),
    ],
)
def test_doorbells_that_belong_to_nothing_do_nothing(quiet, offset):
    quiet.device.write_doorbell(offset, 1)
    quiet.run_for(10_000)
    assert vectors(quiet) == [] and quiet.events(EqeType.ASYNC) == []
