"""24-bit sequence arithmetic, exhaustively around the wrap, and the one range check of the NIC."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nicemu.nic import psn as compiled

psn_diff, psn_add, in_range = (
    getattr(f, "py_func", f) for f in (compiled.psn_diff, compiled.psn_add, compiled.in_range)
)
packet_count = getattr(compiled.packet_count, "py_func", compiled.packet_count)
MOD, HALF = 1 << 24, 1 << 23
PSN = st.integers(0, MOD - 1)
ADDRESS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-16, 16), st.integers(2**63 - 17, 2**63 - 1))


@pytest.mark.parametrize("base", [0, 1, HALF - 1, HALF, HALF + 1, MOD - 2, MOD - 1])
def test_difference_of_every_psn_to_a_base_is_the_signed_distance(base):
    psns = np.arange(MOD, dtype=np.int64)
    expected = (psns - base + HALF) % MOD - HALF
    assert np.array_equal(psn_diff(psns, base), expected)
    assert expected.min() == -HALF and expected.max() == HALF - 1


@pytest.mark.parametrize("a", range(MOD - 40, MOD + 40))
def test_compiled_and_python_agree_at_the_wrap(a):
    for b in range(MOD - 40, MOD + 40):
        assert compiled.psn_diff(a % MOD, b % MOD) == psn_diff(a % MOD, b % MOD) == a - b


@given(PSN, st.integers(-HALF, HALF - 1))
def test_adding_a_distance_gives_a_psn_at_that_distance(psn, distance):
    assert psn_diff(psn_add(psn, distance), psn) == distance


@given(PSN, PSN)
def test_exactly_one_of_two_psns_is_ahead_unless_half_the_space_lies_between(a, b):
    if a != b and (a - b) % MOD != HALF:
        assert (psn_diff(a, b) > 0) != (psn_diff(b, a) > 0)


@pytest.mark.parametrize("mtu", [256, 512, 1024, 2048, 4096])
def test_a_message_has_at_least_one_packet_and_no_empty_last_one(mtu):
    assert packet_count(0, mtu) == 1
    for k in (1, 2, 3, 100):
        assert packet_count(k * mtu, mtu) == k
        assert packet_count(k * mtu + 1, mtu) == k + 1
        assert packet_count(k * mtu - 1, mtu) == k
    assert packet_count(1 << 31, mtu) == (1 << 31) // mtu


@settings(deadline=None)
@example(2**62, 1, -(2**63), 4096)
@example(-(2**63), 8, 0x7000_0000_0000, 4096)
@example(2**63 - 1, 1, -(2**63), 2**62)
@given(ADDRESS, st.integers(-4, 2**33), ADDRESS, st.integers(0, 2**63 - 1))
def test_a_range_lies_in_a_region_iff_unsigned_arithmetic_says_so(va, length, base, size):
    """Regions that wrap around 2^64 do not exist: the driver refuses them. Nothing overflows, whatever is asked."""
    with np.errstate(over="raise"):
        in_range(*(np.int64(number) for number in (va, length, base, size)))
    u_va, u_base = va % 2**64, base % 2**64
    if u_base + size > 2**64 or (u_base < 2**63 < u_base + size):
        return
    expected = length >= 0 and u_base <= u_va and u_va + length <= u_base + size
    assert bool(compiled.in_range(va, length, base, size)) == expected
