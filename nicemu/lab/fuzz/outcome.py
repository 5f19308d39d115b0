"""What became of a hostile packet: read off the device's counters and verdicts around the events that judge it."""

from nicemu._jit import jit
from nicemu.lab.fuzz.tables import KINDS, OPERATIONS, OUTCOMES, STATES, Outcome, counter, fuzz, target
from nicemu.nic import responder
from nicemu.tables import units
from nicemu.tables.rows import control, event, nic, packet, qp
from nicemu.wire import opcode as bth

MALFORMED, NOT_HEARD, BAD_KEY = int(Outcome.MALFORMED), int(Outcome.NOT_HEARD), int(Outcome.BAD_KEY)
DROPPED, QUEUED, ACCEPTED, DATA = int(Outcome.DROPPED), int(Outcome.QUEUED), int(Outcome.ACCEPTED), int(Outcome.DATA)
REPLAYED, ACKED, RNR = int(Outcome.REPLAYED), int(Outcome.ACKED), int(Outcome.RNR)
NAK_SEQUENCE, NAK_INVALID = int(Outcome.NAK_SEQUENCE), int(Outcome.NAK_INVALID)
NAK_ACCESS, NAK_OPERATIONAL = int(Outcome.NAK_ACCESS), int(Outcome.NAK_OPERATIONAL)
IGNORED, HEEDED = int(Outcome.IGNORED), int(Outcome.HEEDED)


@jit
def before_event(world, f):
    """Number of the packet that the next event brings to a target, -1 if it is something else. Remembers what the
    counters were."""
    row = fuzz(f, 0)
    if row.classify == 0:
        return -1
    e = event(world, control(world, 0).front)
    if e.kind != units.ARRIVE or e.a != row.last_packet or packet(world, e.a).dest_nic != 1:
        return -1
    n = nic(world, 1)
    row.dropped = n.packets_dropped
    row.malformed = n.malformed
    row.bad_keys = n.bad_pkeys + n.bad_qkeys
    t = target(f, row.last_target)
    q = qp(world, t.qp)
    row.sender = q.una_psn + (q.retries << 24) + (q.rnr_retries << 28) + (q.rnr_until << 1) + q.sq_una + q.sq_error
    row.pushed = q.commit_until
    packet(world, e.a).verdict = -1
    return e.a


@jit
def refused(n, row):
    """Outcome of a packet that no QP heard."""
    if n.malformed != row.malformed:
        return MALFORMED
    return BAD_KEY if n.bad_pkeys + n.bad_qkeys != row.bad_keys else NOT_HEARD


@jit
def judged(verdict):
    """Outcome of a request by the responder's verdict."""
    if verdict == responder.ACCEPT:
        return ACCEPTED
    if verdict == responder.SAVED:
        return REPLAYED
    if verdict == responder.REACK:
        return ACKED
    if verdict == responder.RNR:
        return RNR
    if verdict == responder.NAK_SEQUENCE:
        return NAK_SEQUENCE
    if verdict == responder.ACCESS_ERROR:
        return NAK_ACCESS
    return NAK_OPERATIONAL if verdict == responder.RECV_PROT else NAK_INVALID


@jit
def outcome(world, f, p):
    """What became of packet ``p``, which has just arrived."""
    row = fuzz(f, 0)
    n = nic(world, 1)
    if n.packets_dropped != row.dropped:
        return refused(n, row)
    it = packet(world, p)
    q = qp(world, target(f, row.last_target).qp)
    if bth.is_response(it.opcode):
        if q.commit_until != row.pushed:
            return DATA
        sender = q.una_psn + (q.retries << 24) + (q.rnr_retries << 28) + (q.rnr_until << 1) + q.sq_una + q.sq_error
        return IGNORED if sender == row.sender else HEEDED
    if it.verdict >= 0:
        return judged(it.verdict)
    return QUEUED if q.read_active else DROPPED


@jit
def note(world, f, p):
    """Count what became of packet ``p``."""
    row = fuzz(f, 0)
    if row.multicast:
        return
    t = target(f, row.last_target)
    state = row.last_state
    at = ((t.kind * STATES + state) * OPERATIONS + (packet(world, p).opcode & 31)) * OUTCOMES
    counter(f, at + outcome(world, f, p)).count += 1


assert KINDS * STATES * OPERATIONS * OUTCOMES < 1 << 20
