"""One compiled loop over the timing wheel, and the units it reaches through the handler vector."""

from __future__ import annotations

from collections.abc import Callable

from nicemu._jit import call, cold, entry, jit
from nicemu.abi.rings import Doorbell
from nicemu.fabric import link, pause, switch
from nicemu.nic import (
    arrive,
    command,
    commit,
    completer,
    congestion,
    cq,
    device_event,
    dma,
    eq,
    held_event,
    hooks,
    msix,
    page_fault,
    port,
    program_ring,
    qp_state,
    raw_receive,
    raw_send,
    read_response,
    receive_queue,
    rendezvous,
    reply,
    requester,
    responder,
    send_queue,
    tag_list,
    tag_matching,
)
from nicemu.nic.hooks import ask
from nicemu.nic.lent import keep_all
from nicemu.nic.qp_cache import touch
from nicemu.tables import units
from nicemu.tables.capture import MAX_CAPTURE
from nicemu.tables.records import Stop
from nicemu.tables.rows import control, event, nic, qp, vector
from nicemu.tables.trace import MAX_TRACE, Ev, trace
from nicemu.tables.wheel import next_time, pop

DEADLINE, INTERRUPT, CQE, IDLE, FULL, TRAP = (int(stop) for stop in Stop)
DOORBELL, SEND_BANK, RECV_BANK = int(Ev.DOORBELL), int(Doorbell.SEND), int(Doorbell.RECV)


def doorbell(world, row, receives):
    """DOORBELL: a send doorbell reached the NIC; in ERR and SQE it flushes what was posted. In ERR, or ``receives``: a
    receive doorbell."""
    q = qp(world, row)
    if q.valid == 0:
        return 0
    if receives == 0:
        trace(world, DOORBELL, q.nic, q.number, SEND_BANK, program_ring.sends_posted(world, row), 0)
    if q.state == qp_state.ERR:
        if receives and ask(world, q.nic, hooks.LATE_RECEIVE, row, 0) == 0:
            return 0
        return call(vector(world, units.QP_ERROR).address, world, row, 0)
    if q.state == qp_state.SQE:
        return call(vector(world, units.SQ_ERROR).address, world, row, 0)
    if q.sq_scheduled == 0:
        send_queue.kick(world, row, nic(world, q.nic).wqe_fetch_ns + touch(world, q.nic, row))
    return 0


UNITS: dict[int, Callable] = {
    units.REQUESTER: requester.requester, units.DEPART: port.depart, units.ARRIVE: arrive.arrive,
    units.COMMIT: commit.commit, units.READ_RESPONSE: read_response.read_response, units.ACK_TIMER: completer.ack_timer,
    units.RNR_TIMER: completer.rnr_timer, units.COMMAND: command.command, units.COMMAND_DONE: command.command_done,
    units.FAULT_REPORT: page_fault.report, units.RESUME: page_fault.resume, units.INTERRUPT: msix.interrupt,
    units.FAULT_RETRY: page_fault.retry,
    units.CQ_ARM: cq.arm, units.EQ_ARM: eq.arm, units.DOORBELL: doorbell, units.COMPLETER: completer.completer,
    units.RESPONDER: responder.responder, units.QP_ERROR: qp_state.qp_error,
    units.GATHER_FAILED: requester.gather_failed, units.RETIRE: send_queue.retire,
    units.LINK_SEND: link.link_send, units.LINK_START: link.start, units.LINK_FREE: link.link_free,
    units.SWITCH_IN: switch.switch_in, units.PAUSE: pause.pause,
    units.ACK: reply.send_ack, units.SQ_ERROR: qp_state.send_queue_error, units.SENT: requester.sent,
    units.CQ_TIMER: cq.moderated, units.VECTOR_TIMER: msix.moderated, units.DEVICE_EVENT: device_event.device_event,
    units.TAG_OPERATION: tag_list.tag_operation, units.TAG_TAKE: tag_matching.take_message,
    units.TAG_COMPLETE: tag_matching.complete_message, units.TAG_FAILED: tag_matching.tag_failed,
    units.TAG_FLUSH: tag_matching.tag_flush,
    units.RENDEZVOUS: rendezvous.rendezvous,
    units.RELEASE_HELD: held_event.release, units.CQ_RIPEN: cq.ripen,
    units.PROGRAM_RING: program_ring.transfer,
    units.CONGESTION_TIMER: congestion.congestion_timer,
    units.RECV_TELLS: receive_queue.recv_tells, units.MISPLACE: dma.misplace,
    units.RAW_BUILD: raw_send.raw_build, units.RAW_DEPART: raw_send.raw_depart,
    units.RAW_ARRIVE: raw_receive.raw_arrive, units.RAW_COMMIT: raw_receive.raw_commit,
    units.RAW_RESUME: raw_receive.raw_resume,
}  # fmt: skip


@cold
def is_full(c):
    """The event log or the capture has to be drained."""
    return c.trace_count >= MAX_TRACE or c.capture_count >= MAX_CAPTURE


@jit
def goes_on(world, until):
    """Nobody wants the run to stop, and the next event is due, and at the front."""
    c = control(world, 0)
    if c.trap | c.interrupts | c.cqe_hits != 0 or c.pending == c.stale:
        return False
    if c.trace_count | c.capture_count >= MAX_CAPTURE and is_full(c):  # MAX_CAPTURE is a power of two, and the less
        return False
    return next_time(world, until) <= until


@cold
def stop_reason(c):
    """Why a run that does not go on stops, a :class:`Stop`."""
    if c.trap != 0:
        return TRAP
    if c.interrupts != 0:
        return INTERRUPT
    if c.cqe_hits != 0:
        c.cqe_hits = 0
        return CQE
    if is_full(c):
        return FULL
    return IDLE if c.pending == c.stale else DEADLINE


@jit
def run_event(world):
    """Run the event at the front."""
    c = control(world, 0)
    c.now = max(c.now, c.front_time)  # a cancelled timer may lie behind
    e = event(world, pop(world))
    c.ran += 1
    call(vector(world, e.kind).address, world, e.a, e.b)


@entry("int64(int64, int64)")
def run(world, until):
    """Run events at times <= ``until`` in order; the answer is a :class:`Stop`."""
    while goes_on(world, until):
        run_event(world)
    if control(world, 0).lent_chain != 0:
        keep_all(world, 0)
    return stop_reason(control(world, 0))
