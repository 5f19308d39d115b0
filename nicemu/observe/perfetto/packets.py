# mypy: ignore-errors
"""Packets, cables, completions and commands."""

from nicemu._jit import jit
from nicemu.observe.perfetto.proto import BEGIN, END, INSTANT
from nicemu.observe.perfetto.queue_pairs import SQ_HELD, end_wait, find_psn, flow_of, row_of
from nicemu.observe.perfetto.rows import high, low, raw, time_of, word
from nicemu.observe.perfetto.state import command, link, nic, qp, scribe
from nicemu.observe.perfetto.tracks import count, end_slice, gauge, new_track
from nicemu.observe.perfetto.words import WORDS, Block, Gauge
from nicemu.wire import opcode as bth

REQUESTER, RESPONDER, COMPLETER = int(Block.REQUESTER), int(Block.RESPONDER), int(Block.COMPLETER)
CQ, COMMANDS = int(Block.CQ), int(Block.COMMANDS)
IN_FLIGHT, SENT = int(Gauge.IN_FLIGHT), int(Gauge.SENT)
SLOT_NAME = WORDS["command slot "]
WC_RECV, SLOTS = 128, 64


@jit
def sent(world, r, nic_number):
    """SEND: a request of the requester, a response of the responder. Arrows go through the first packet of a request
    and through its last acknowledgement."""
    opcode, psn, data = word(world, r, 0), word(world, r, 1), word(world, r, 3)
    first = nic(world, nic_number).first
    q_row = row_of(world, nic_number, high(data))
    q = qp(world, q_row)
    if bth.is_response(opcode):
        flow = find_psn(world, q.peer, psn, True) if q_row and q.peer else 0
        raw(world, r, INSTANT, first + RESPONDER, flow)
    else:
        if q.waiting == SQ_HELD and q_row:
            end_wait(world, time_of(world, r), q, SQ_HELD)
        raw(world, r, INSTANT, first + REQUESTER, find_psn(world, q_row, psn, False) if begins(opcode) and q_row else 0)
    count(world, time_of(world, r), gauge(nic_number, IN_FLIGHT), 1)
    count(world, time_of(world, r), gauge(nic_number, SENT), low(data))


@jit
def begins(opcode):
    """A request's first packet."""
    return bth.starts(opcode) or bth.is_non_posted(opcode)


@jit
def received(world, r, nic_number):
    """RECEIVE: as SEND, at the other side."""
    opcode, psn = word(world, r, 0), word(world, r, 1)
    first = nic(world, nic_number).first
    q_row = row_of(world, nic_number, word(world, r, 2))
    peer = qp(world, q_row).peer if q_row else 0
    if bth.is_response(opcode):
        raw(world, r, INSTANT, first + COMPLETER, find_psn(world, q_row, psn, True) if q_row else 0)
    else:
        flow = find_psn(world, peer, psn, False) if peer and begins(opcode) else 0
        raw(world, r, INSTANT, first + RESPONDER, flow)
    arrived(world, time_of(world, r), peer)


@jit
def arrived(world, time, peer):
    """A packet of the QP in row ``peer`` is not on its way any more."""
    if peer:
        count(world, time, gauge(1 + (peer - 1) // scribe(world, 0).qps, IN_FLIGHT), -1)


@jit
def lost(world, r, nic_number):
    """LINK_DROP."""
    raw(world, r, INSTANT, nic(world, nic_number).first, 0)
    count(world, time_of(world, r), gauge(nic_number, IN_FLIGHT), -1)


@jit
def on_cable(world, r, nic_number, inwards):
    """LINK_OUT, LINK_IN: a slice as long as the packet's bits take; its end is written when time has come there."""
    row = 2 * nic_number - 1 + inwards
    wire = link(world, row)
    s = scribe(world, 0)
    if wire.end:
        end_slice(world, time_of(world, r), wire.track)
    wire.end = time_of(world, r) + word(world, r, 3)
    raw(world, r, BEGIN, wire.track, 0)
    if s.link_end == 0 or wire.end < s.link_end:
        s.link_end = wire.end


@jit
def cables_until(world, time):
    """End the slices on cables that are over by ``time``, in the order of their ends."""
    s = scribe(world, 0)
    while 0 < s.link_end <= time:
        following = 0
        for row in range(1, s.links + 1):
            wire = link(world, row)
            if wire.end == s.link_end:
                end_slice(world, wire.end, wire.track)
                wire.end = 0
            elif wire.end and (following == 0 or wire.end < following):
                following = wire.end
        s.link_end = following


@jit
def completed(world, r, nic_number):
    """CQE: the arrow of a send ends here."""
    data = word(world, r, 3)
    q_row = row_of(world, nic_number, word(world, r, 1))
    flow = flow_of(world, q_row, high(data)) if low(data) < WC_RECV and high(data) < qp(world, q_row).announced else 0
    raw(world, r, INSTANT, nic(world, nic_number).first + CQ, flow)


@jit
def commanded(world, r, nic_number):
    """COMMAND: a slice on the track of its slot."""
    slot = word(world, r, 1)
    c = command(world, nic_number * SLOTS + slot % SLOTS)
    if c.track == 0:
        c.track = new_track(world, nic(world, nic_number).first + COMMANDS, SLOT_NAME, slot, slot)
    if c.open:
        end_slice(world, time_of(world, r), c.track)
    c.open = 1
    raw(world, r, BEGIN, c.track, 0)


@jit
def command_done(world, r, nic_number):
    """COMMAND_DONE: it ends."""
    c = command(world, nic_number * SLOTS + word(world, r, 1) % SLOTS)
    raw(world, r, END if c.open else INSTANT, c.track if c.open else nic(world, nic_number).first + COMMANDS, 0)
    c.open = 0
