"""The plain choices: go-back-N, exact timers, an RNR NAK for a missing page, and a drop where no RNR NAK exists.

Imitates: no product; the InfiniBand specification where it leaves a choice, each time the simplest.
Source: Lesokhin et al., ASPLOS'17 (a missing page at the responder is answered with an RNR NAK); Linux rxe (go-back-N,
    timers as configured).
Inferred: nothing.
"""


def responder_fault(world, row, arg):
    """RNR timer code of the NAK that answers a missing page: the QP's min_rnr_timer (``arg``)."""
    return arg


def fault_pages(world, row, arg):
    """Pages to ask the driver for: 0, all that the operation still needs."""
    return 0


def ack(world, row, arg):
    """Acknowledge a packet that did not ask for it: no."""
    return 0


def ack_timeout(world, row, arg):
    """Local ACK timeout in ns: as configured (the specification allows T..4T)."""
    return arg


def rnr_wait(world, row, arg):
    """RNR wait in ns: exactly the timer."""
    return arg


def iotlb_victim(world, row, arg):
    """Way to evict: -1, the least recently used."""
    return -1


def unreliable_fault(world, row, arg):
    """Keep a UD or UC packet, or a raw frame, that hit a missing page: no, it is dropped."""
    return 0


def async_event(world, row, arg):
    """Report an async event: yes."""
    return 1


def send_error(world, row, arg):
    """Status of a failed send request: what is wrong with it (``arg`` >> 8)."""
    return arg >> 8


def receive_error(world, row, arg):
    """NAK and status of the receive of a refused request: those of the specification."""
    return arg


def short_receive(world, row, arg):
    """A message of UD or UC that is too long for its receive: dropped."""
    return 0


def error_wakes(world, row, arg):
    """An error completion counts as solicited: yes."""
    return 1


def late_receive(world, row, arg):
    """Flush a receive posted in ERR: yes."""
    return 1


def cq_overrun(world, row, arg):
    """An overrun CQ: dead."""
    return 1


def response_fault(world, row, arg):
    """Let a response wait for its page: no, it is dropped and asked for again."""
    return 0


def requester_fault(world, row, arg):
    """Try again before the resume: no."""
    return 0


def fault_detect(world, row, arg):
    """Time to report a missing page: the profile's."""
    return arg


def resume(world, row, arg):
    """Time to go on after a resume: the profile's."""
    return arg


def missing_page(world, row, arg):
    """A missing page: a page fault."""
    return 0


def iotlb_fill(world, row, arg):
    """Keep a translation in the IOTLB: yes."""
    return 1


def invalidation(world, row, arg):
    """Flush the lines of the pages that are taken away."""
    return 0


def retransmit(world, row, arg):
    """Go-back-N."""
    return 0


def psn_ahead(world, row, arg):
    """A gap: one NAK, and what is behind it is dropped."""
    return 0


def after_rnr(world, row, arg):
    """What comes behind a request that was answered RNR: dropped, it will be sent again."""
    return 1


def next_turn(world, row, arg):
    """Next packet of a QP: when the port takes it."""
    return arg


def interrupt_moderation(world, row, arg):
    """Hold an interrupt back: as the profile says."""
    return arg


def cc_sent(world, row, arg):
    """Rate after a packet: unchanged."""
    return -1


def cc_ack(world, row, arg):
    """Rate after an ACK: unchanged."""
    return -1


def cc_ecn(world, row, arg):
    """Answer an ECN mark: if the interval since the last CNP is over."""
    return arg


def cc_cnp(world, row, arg):
    """Rate after a CNP: unchanged."""
    return -1


def cc_timer(world, row, arg):
    """Rate after a while: unchanged."""
    return -1
