"""Record dtypes of the timing wheel. Rules as in nicemu.tables.records."""

from nicemu.tables.record import record

EVENT = record(
    "time", "a", "b", "kind:i32",
    "next:i32",              # in its bucket, where the first follows the last; of a free row: the next free one
)  # fmt: skip
BUCKET = record("last:i32")
"""Events of one ns of the window; 0: none."""
COARSE = record("earliest", "last:i32")
"""Events of many ns, and the time of the first of them; one level of buckets behind the other."""
PENDING = record("bits")
"""Buckets that are not empty: a bit each. Behind the words of a level is one with a bit for each of them."""

WINDOW_BITS, COARSE_BITS, COARSE_LEVELS = 12, 10, 5
WORD_BITS = 6
WINDOW_NS, COARSE_BUCKETS = 1 << WINDOW_BITS, 1 << COARSE_BITS
WINDOW_WORDS, COARSE_WORDS = WINDOW_NS >> WORD_BITS, COARSE_BUCKETS >> WORD_BITS
COARSE_ROWS = COARSE_LEVELS * COARSE_BUCKETS
PENDING_ROWS = WINDOW_WORDS + 1 + COARSE_LEVELS * (COARSE_WORDS + 1)
