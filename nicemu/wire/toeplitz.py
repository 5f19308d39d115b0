"""The Toeplitz hash of receive-side scaling (Microsoft, "RSS hashing functions"; its vectors are the tests).

Each bit of the input that is 1 adds (XOR) the 32 bits of the key that begin at its position. So the hash of several
fields is the XOR of the hashes of each at its position.
"""

from nicemu._jit import jit, load8


@jit
def key_window(key, position):
    """32 bits of the key at host address ``key``, from bit ``position`` on; the key has 5 bytes from there on."""
    at = key + (position >> 3)
    value = 0
    for i in range(5):
        value = value << 8 | load8(at + i)
    return value >> (8 - (position & 7)) & 0xFFFFFFFF


@jit
def toeplitz(key, position, value, bits):
    """Hash of a field: the low ``bits`` (at most 64) of ``value``, the first of them bit ``position`` of the input."""
    result = 0
    for i in range(bits):
        if value >> (bits - 1 - i) & 1:
            result ^= key_window(key, position + i)
    return result
