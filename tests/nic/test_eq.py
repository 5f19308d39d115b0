"""Event queues and MSI-X: owner words, arming, mask and pending bits, lost events."""

import pytest

from nicemu.abi.command import Command
from nicemu.abi.rings import EQE, Doorbell, EqeType, Eqn, doorbell_offset, owner
from nicemu.abi.verbs import AsyncEvent, QpAttrMask, QpState
from tests.nic.testbench import Cq, Qp, Ring, WrOpcode


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


# Back-pressure


def shrink(bench, eqn, slots):
    """Another ring for an event queue; armed. Its consumer is the test."""
    ring, record = Ring(slots * 64), Ring(16)
    bench.device.attach_eq(eqn, ring.address, slots, record.address)
    bench.device.write_doorbell(doorbell_offset(Doorbell.EQ_ARM, eqn), 0)
    bench.run_for(1000)

    def take():
        head = record.word(0)
        values = EQE.unpack_from(ring.view, head % slots * 64)
        if values[-1] != owner(head, slots):
            return None
        record.word(0, head + 1)
        return values

    return take


def drain(bench, eqn, take):
    """All events, as a driver gets them: drain, arm, again while the device has more."""
    found = []
    while True:
        count = len(found)
        while (event := take()) is not None:
            found.append(event)
        arm(bench, eqn)
        if len(found) == count:
            return found


def qps(bench, count):
    """That many connected pairs on one CQ a side, with a region that has no translations."""
    cqs = Cq(bench, 1), Cq(bench, 2)
    pairs = [(Qp(bench, 10 + 2 * i, cqs[0]), Qp(bench, 11 + 2 * i, cqs[1])) for i in range(count)]
    for a, b in pairs:
        a.connect(b)
        b.connect(a)
    return pairs


@pytest.mark.parametrize("slots", [1, 4])
def test_64_qps_fault_at_once_into_a_tiny_queue_and_every_fault_is_reported_once(bench, slots):
    pairs, region = qps(bench, 64), bench.region(64)
    take = shrink(bench, Eqn.PAGE_FAULT, slots)
    for i, (a, _) in enumerate(pairs):
        a.post_send(i, WrOpcode.RDMA_WRITE, region.sge(8, i * 4096), remote=region.va, rkey=region.key)
    bench.run_for(1_000_000)
    row = bench.world.eq[int(bench.device.row.eq_base) + Eqn.PAGE_FAULT]
    assert (row.produced, row.held, row.lost) == (slots, 64 - slots, 0)
    assert bench.device.row.faults_held == 64 - slots
    reported = [words[2] & 0xFFFFFFFF for words in drain(bench, Eqn.PAGE_FAULT, take)]
    assert reported == [a.number for a, _ in pairs], "oldest first"
    assert row.held == 0


def test_a_held_fault_of_a_qp_that_is_reset_is_forgotten(bench):
    pairs, region = qps(bench, 4), bench.region(4)
    take = shrink(bench, Eqn.PAGE_FAULT, 1)
    for i, (a, _) in enumerate(pairs):
        a.post_send(i, WrOpcode.RDMA_WRITE, region.sge(8, i * 4096), remote=region.va, rkey=region.key)
    bench.run_for(1_000_000)
    victim = pairs[2][0]
    victim.modify(QpAttrMask.STATE, STATE=QpState.RESET)
    reported = [words[2] & 0xFFFFFFFF for words in drain(bench, Eqn.PAGE_FAULT, take)]
    assert reported == [pairs[i][0].number for i in (0, 1, 3)]


def test_a_new_fault_of_a_qp_whose_old_one_is_held_is_reported_once(bench):
    pairs, region = qps(bench, 2), bench.region(4)
    take = shrink(bench, Eqn.PAGE_FAULT, 1)
    for i, (a, _) in enumerate(pairs):
        a.post_send(i, WrOpcode.RDMA_WRITE, region.sge(8, i * 4096), remote=region.va, rkey=region.key)
    bench.run_for(1_000_000)
    a, b = pairs[1]
    a.modify(QpAttrMask.STATE, STATE=QpState.RESET)
    a.record.word(0, 0)
    a.connect(b)
    a.post_send(7, WrOpcode.RDMA_WRITE, region.sge(8, 3 * 4096), remote=region.va, rkey=region.key)
    bench.run_for(int(bench.device.row.fault_detect_ns) // 2)
    assert take()[2] & 0xFFFFFFFF == pairs[0][0].number
    arm(bench, Eqn.PAGE_FAULT)
    assert take() is None, "not reported before it is detected"
    bench.run_for(1_000_000)
    (event,) = drain(bench, Eqn.PAGE_FAULT, take)
    assert event[5] == region.va + 3 * 4096


def test_a_completion_event_that_finds_its_queue_full_comes_later(bench):
    cqs = [Cq(bench, 1 + i) for i in range(5)]
    senders = [Qp(bench, 10 + i, cq) for i, cq in enumerate(cqs)]
    for sender in senders:
        sender.connect(sender)
    take = shrink(bench, Eqn.COMPLETION, 2)
    for cq, sender in zip(cqs, senders, strict=True):
        bench.device.write_doorbell(doorbell_offset(Doorbell.CQ_ARM, cq.number), 1)
        sender.post_send(1, 99)
    bench.run_for(100_000)
    assert bench.device.row.cq_events_held == 3
    bench.command(Command.DESTROY_QP, 13)
    bench.command(Command.DESTROY_CQ, 4)
    assert [words[2] for words in drain(bench, Eqn.COMPLETION, take)] == [1, 2, 3, 5], "a destroyed CQ has no event"


def test_an_async_event_that_is_lost_brings_the_device_down_and_is_counted(bench):
    pairs, local = qps(bench, 6), bench.mr(1)
    take = shrink(bench, Eqn.ASYNC, 2)
    for a, _ in pairs[:3]:
        a.post_send(1, WrOpcode.RDMA_WRITE, local.sge(8), remote=0x1234, rkey=0x99)
        bench.run_for(100_000)
    row = bench.world.eq[int(bench.device.row.eq_base) + Eqn.ASYNC]
    assert row.lost == 1 and bench.device.row.events_lost == 1
    events = drain(bench, Eqn.ASYNC, take)
    assert [words[1] for words in events] == [AsyncEvent.QP_ACCESS_ERR] * 2 + [AsyncEvent.DEVICE_FATAL]
    assert all(qp.row().state == QpState.ERR for pair in pairs for qp in pair)
