"""Selective repeat: only what was lost is sent again.

Imitates: no product. Devices that have it, such as the ones whose register ROCE_ACCL has `selective_repeat_forced_en`
(NVIDIA, "Adaptive Retransmission: Parameters Control"), do not say how; so this is the plain form of the textbooks on
RoCE's own packets, without a new header.

Source: the NAK of the specification names the first packet that is missing, and that is all a responder says.

Inferred: the responder keeps up to 128 requests behind a gap and NAKs one gap after the other; the requester sends that
one packet and goes on. Where nobody named a packet (the ACK timer, an RNR NAK) and for READ responses, which the
requester does not keep, it goes back as ever.
"""

from nicemu.firmware import BY_NAK, GO_BACK, KEEP, ONLY


def psn_ahead(world, row, arg):
    """What comes ahead of a gap waits until the gap is closed."""
    return KEEP


def retransmit(world, row, arg):
    """The packet that the NAK names."""
    return ONLY if arg >> 24 == BY_NAK else GO_BACK
