"""Seeded randomness for kernels: xorshift with 32 bits of state (Marsaglia), the same compiled and plain."""

from nicemu._jit import jit
from nicemu.lab.fuzz.tables import fuzz

WORD = 0xFFFFFFFF


@jit
def word32(f):
    """32 random bits."""
    row = fuzz(f, 0)
    x = row.random
    x ^= (x << 13) & WORD
    x ^= x >> 17
    x ^= (x << 5) & WORD
    row.random = x
    return x


@jit
def draw(f, count):
    """0 .. count - 1."""
    return (word32(f) * count) >> 32


@jit
def one_in(f, count):
    """True once in ``count`` times."""
    return draw(f, count) == 0


@jit
def word64(f):
    """Any int64."""
    high = word32(f) - 0x80000000
    return high * 0x100000000 + word32(f)


@jit
def pick(f, choices):
    """One of a tuple of integers."""
    return choices[draw(f, len(choices))]


def seed_of(seed: int, episode: int) -> int:
    """Generator state of an episode: never 0, and far from its neighbours'."""
    x = (seed * 0x9E3779B97F4A7C15 + episode * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) % 2**64
    for _ in range(2):
        x ^= x >> 31
        x = x * 0xBF58476D1CE4E5B9 % 2**64
    return (x >> 32) or 1
