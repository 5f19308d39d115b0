"""ACK timeouts that begin short, at random, and double: a loss costs milliseconds, and a dead peer is still waited for.

Imitates: adaptive retransmission of NVIDIA adapters. It replaces the QP's own timeout, but 0 is still never.

Source: NVIDIA, "Adaptive Retransmission: Parameters Control", section "Algorithm & Profile Description and Formulas":
the first timeout is drawn from a range and used once; the timer is time_base * 2^timeout, time_base at least 4 us; in a
range each value is used timeout_retry_num times, then doubled, up to the next range; at most 4 ranges.

Inferred: the ranges, which the text does not give. A ConnectX-5 was seen to retransmit after 2, 4, 8 and 16 ms
(github.com/linux-rdma/perftest, issue 251): so the first range. Drawn once in a QP's life; progress brings the first
timeout back; the last value stays. The real timer may take up to four times as long, this one does not.
"""

from nicemu.firmware import BY_TIMEOUT, GO_BACK, KEEP_RATE, below, draw, fabric, jit, qp, qp_state

TIME_BASE_NS = 4096
INIT_LOW, INIT_SIZE = 8, 3
"""The first timeout: 2^8, 2^9 or 2^10 time bases: 1, 2 or 4 ms."""
RANGE_LOW, RANGE_END, RANGE_RETRIES = 9, 13, 1
"""2, 4, 8, 16 ms, each once."""
LAST_LOW, LAST_END, LAST_RETRIES = 13, 18, 2
"""34 ms to 0.5 s, each twice."""
STREAM = 0x41445054
"""Keeps these draws apart from others of one seed."""

mine = qp_state("first", "current", "used", "expired")


@jit
def begin(world, row, state):
    """A QP's first timeout, drawn once in its life."""
    if state.first == 0:
        number = draw(fabric(world, 0).seed, STREAM, row, qp(world, row).incarnation)
        state.first = INIT_LOW + below(number, INIT_SIZE)
    if state.current == 0:
        state.current = state.first
        state.used = state.expired = 0


@jit
def retries(current):
    """How often a value is used."""
    return RANGE_RETRIES if current < RANGE_END else LAST_RETRIES


@jit
def expire(state):
    """The timer ran out: the same value again, or its double; outside of the ranges the first of them."""
    state.used += 1
    state.expired += 1
    if state.expired > 1 and state.used < retries(state.current):
        return
    state.used = 0
    state.current = min(max(state.current + 1, RANGE_LOW), LAST_END - 1)


def ack_timeout(world, row, arg):
    """The timeout of the moment."""
    state = mine(world, row)
    begin(world, row, state)
    return TIME_BASE_NS << state.current


def retransmit(world, row, arg):
    """Go-back-N; a timeout makes the next one longer."""
    state = mine(world, row)
    if arg >> 24 == BY_TIMEOUT and state.current != 0:
        expire(state)
    return GO_BACK


def cc_ack(world, row, arg):
    """Progress: the first timeout again. The rate stays."""
    mine(world, row).current = 0
    return KEEP_RATE
