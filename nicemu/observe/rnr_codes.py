"""RNR NAK timers (IBA table 45; the kernel's ``rnrnak_usec``): what each 5-bit code makes the requester wait."""

RNR_CODE_NS = tuple(
    round(ms * 1_000_000)
    for ms in (
        655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92, 2.56, 3.84,
        5.12, 7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76, 327.68, 491.52,
    )
)  # fmt: skip
"""By code; code 0 is the longest."""


def shortest_code(ns: int) -> int:
    """The code with the shortest timer of at least ``ns``; 0 if none is long enough."""
    return min((wait, code) for code, wait in enumerate(RNR_CODE_NS) if wait >= ns or code == 0)[1]
