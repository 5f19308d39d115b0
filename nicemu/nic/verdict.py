"""Verdicts of the responder's checks about a request."""

(ACCEPT, DROP, NAK_SEQUENCE, REACK, REPLAY, RNR, INVALID, ACCESS_ERROR, RECV_PROT, RECV_LEN, SAVED, HOLD,
 AHEAD) = range(13)  # fmt: skip
"""ACCEPT goes on to the next check."""
