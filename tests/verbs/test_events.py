"""Completion channels: which completions wake a program, and how often."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .sides import connect, read, recv, send, write
from .waiting import has_cq_event, successes

SOLICITED = e.IBV_SEND_SIGNALED | e.IBV_SEND_SOLICITED
QUIET = 0.1
"""Seconds in which an event that must not come would have come."""


class Armed:
    """A connection whose receiving side has a CQ on a channel."""

    def __init__(self, near, far):
        self.near, self.far = near, far
        self.channel = far.channel()
        self.cq = far.new_cq(channel=self.channel)
        self.sent = near.cq
        self.a, self.b = near.qp(), far.qp(scq=self.cq, rcq=self.cq)
        connect(self.a, self.b)
        self.source, self.target = near.region(), far.region()

    def message(self, flags=e.IBV_SEND_SIGNALED, **options):
        recv(self.b, self.target.sge(0, 8))
        send(self.a, self.source.sge(0, 8), flags=flags, **options)
        successes(self.sent, 1)

    def woken(self, seconds=QUIET):
        return has_cq_event(self.channel, self.cq, seconds)


@pytest.fixture
def armed(near, far):
    return Armed(near, far)


def test_an_armed_cq_gives_an_event(armed):
    armed.cq.req_notify()
    armed.message()
    assert armed.woken(seconds=5)
    assert len(armed.cq.poll(8)[1]) == 1


def test_a_cq_that_is_not_armed_gives_none(armed):
    armed.message()
    assert not armed.woken()
    successes(armed.cq, 1)


def test_one_arming_is_one_event_however_many_completions(armed):
    armed.cq.req_notify()
    for _ in range(5):
        armed.message()
    assert armed.woken(seconds=5)
    assert not armed.woken()
    successes(armed.cq, 5)


def test_arming_twice_is_still_one_event(armed):
    armed.cq.req_notify()
    armed.cq.req_notify()
    armed.message()
    assert armed.woken(seconds=5)
    armed.message()
    assert not armed.woken()


def test_after_its_event_a_cq_is_armed_again(armed):
    for _ in range(4):
        armed.cq.req_notify()
        armed.message()
        assert armed.woken(seconds=5)
        successes(armed.cq, 1)


def test_a_completion_that_is_already_there(armed, accept):
    """Whether it gives the event is not defined, so that programs poll once more after arming. If it does not, the
    next one does: there is one event in all."""
    armed.message()
    armed.cq.req_notify()
    at_once = armed.woken()
    why = "IBA 11.4.2.2 (recalled) speaks of the next completion; a device may give the event at once"
    accept("event for a completion from before the arming", at_once, spec={True, False}, why=why)
    armed.message()
    assert armed.woken(seconds=QUIET if at_once else 5) != at_once
    successes(armed.cq, 2)


def test_an_event_does_not_need_the_completion_to_be_polled(armed):
    armed.message()
    armed.cq.req_notify()
    armed.message()
    assert armed.woken(seconds=5)
    successes(armed.cq, 2)


def test_armed_for_solicited_only_a_plain_message_is_silent(armed):
    armed.cq.req_notify(solicited_only=True)
    armed.message()
    assert not armed.woken()
    armed.message(flags=SOLICITED)
    assert armed.woken(seconds=5)
    successes(armed.cq, 2)


@pytest.mark.parametrize("options", [{}, {"imm": 3}], ids=["send", "send_with_imm"])
def test_a_solicited_message_wakes_a_cq_armed_for_it(armed, options):
    armed.cq.req_notify(solicited_only=True)
    armed.message(flags=SOLICITED, **options)
    assert armed.woken(seconds=5)


def test_a_solicited_write_with_immediate_wakes_and_another_does_not(armed):
    armed.cq.req_notify(solicited_only=True)
    for flags in (e.IBV_SEND_SIGNALED, SOLICITED):
        recv(armed.b, armed.target.sge(0, 8))
        write(armed.a, armed.source.sge(0, 8), armed.target.remote(), imm=1, flags=flags)
        successes(armed.sent, 1)
        assert armed.woken(seconds=5 if flags == SOLICITED else QUIET) == (flags == SOLICITED)


def test_a_solicited_message_of_many_packets_wakes_once(armed, near, far):
    source, target = near.region(4), far.region(4)
    armed.cq.req_notify(solicited_only=True)
    recv(armed.b, target.sge())
    send(armed.a, source.sge(0, 10000), flags=SOLICITED)
    successes(armed.sent, 1)
    assert armed.woken(seconds=5)
    assert not armed.woken()


def test_armed_for_everything_a_plain_message_wakes_though_solicited_was_asked_too(armed):
    """The wider of two armings holds (IBA 11.4.2.2, recalled)."""
    armed.cq.req_notify()
    armed.cq.req_notify(solicited_only=True)
    armed.message()
    assert armed.woken(seconds=5)


def test_an_arming_for_solicited_can_be_widened(armed):
    armed.cq.req_notify(solicited_only=True)
    armed.cq.req_notify()
    armed.message()
    assert armed.woken(seconds=5)


def test_completions_of_sends_wake_as_well(near, far):
    channel = near.channel()
    cq = near.new_cq(channel=channel)
    asker, other = near.qp(scq=cq), far.qp()
    connect(asker, other)
    source, target = near.region(), far.region()
    for operation in (write, read):
        cq.req_notify()
        operation(asker, source.sge(0, 8), target.remote())
        assert has_cq_event(channel, cq, seconds=5)
        successes(cq, 1)


def test_a_send_is_no_solicited_completion_for_its_sender(near, far):
    """The solicited bit is for the receiver: the sender's own completion does not wake it."""
    channel = near.channel()
    cq = near.new_cq(channel=channel)
    a, b = near.qp(scq=cq), far.qp()
    connect(a, b)
    source, target = near.region(), far.region()
    recv(b, target.sge(0, 8))
    cq.req_notify(solicited_only=True)
    send(a, source.sge(0, 8), flags=SOLICITED)
    successes(far.cq, 1)
    successes(cq, 1)
    assert not has_cq_event(channel, cq, seconds=QUIET)


def test_an_unsignaled_request_wakes_nobody(near, far):
    channel = near.channel()
    cq = near.new_cq(channel=channel)
    a, b = near.qp(scq=cq), far.qp()
    connect(a, b)
    source, target = near.region(), far.region()
    cq.req_notify()
    recv(b, target.sge(0, 0))
    write(a, source.sge(0, 8), target.remote(), imm=1, flags=0)
    successes(far.cq, 1)
    assert not has_cq_event(channel, cq, seconds=QUIET)


def test_events_of_two_cqs_on_one_channel_name_their_cq(near, far):
    channel = far.channel()
    cqs = [far.new_cq(channel=channel) for _ in range(2)]
    source, target = near.region(), far.region()
    pairs = [(near.qp(), far.qp(rcq=cq)) for cq in cqs]
    for a, b in pairs:
        connect(a, b)
    for asked in (0, 1, 0):
        cqs[asked].req_notify()
        for a, b in (pairs[1 - asked], pairs[asked]):  # first the one that is not armed
            recv(b, target.sge(0, 8))
            send(a, source.sge(0, 8))
            successes(near.cq, 1)
        assert has_cq_event(channel, cqs[asked], seconds=5)


def test_several_events_may_be_acknowledged_at_once(armed):
    for _ in range(3):
        armed.cq.req_notify()
        armed.message()
        armed.channel.get_cq_event(armed.cq)
        successes(armed.cq, 1)
    armed.cq.ack_events(3)
    armed.b.close()
    armed.cq.close()
