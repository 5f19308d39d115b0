"""Counter-based draws: a number is a function of (seed, stream, link, count) and of nothing else.

No state is kept, so what happens on one link cannot change what is drawn on another. All products stay below 2^63,
so that compiled and plain Python agree.
"""

from nicemu._jit import jit

WORD = 0xFFFFFFFF


@jit
def scramble(x):
    """Mix the bits of a 32-bit number: xor-shifts and odd multipliers below 2^31."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & WORD
    x = (x ^ (x >> 15)) * 0x31848BAB & WORD
    x = (x ^ (x >> 17)) * 0x2C1B3C6D & WORD
    return x ^ (x >> 14)


@jit
def draw(seed, stream, link, count):
    """A number in 0 .. 2^32 - 1."""
    h = scramble(seed & WORD)
    h = scramble(h ^ (seed >> 32 & WORD) ^ 0x5BD1E995)
    h = scramble(h + stream & WORD)
    h = scramble(h ^ link << 8)
    h = scramble(h + (count & WORD) & WORD)
    return scramble(h ^ count >> 32)


@jit
def below(value, limit):
    """A draw as a number in 0 .. limit - 1 (limit up to 2^46)."""
    return ((value >> 16) * limit + ((value & 0xFFFF) * limit >> 16)) >> 16
