"""Metrics."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicemu.experiment.measure import aggregate, number, scale

VALUES = st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=30)


LAZY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@LAZY
@given(VALUES, st.integers(1, 99))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values, percent):
    found = aggregate(f"p{percent}", values)
    share = percent / 100 * len(values)
    assert found in values
    assert sum(value <= found for value in values) >= share
    assert sum(value < found for value in values) < share


def test_the_percentile_of_a_thousand_values_is_not_one_too_far():
    """99.9 / 100 * 1000 is more than 999 in floating point."""
    assert aggregate("p99.9", range(1, 1001)) == 999


@LAZY
@given(VALUES)
def test_the_order_of_observations_does_not_matter(values):
    for how in ("p50", "p99.9", "min", "max", "mean", "sum", "count"):
        assert aggregate(how, values) == aggregate(how, values[::-1])


def test_mean_and_sum_are_exact():
    assert aggregate("sum", [0.1] * 10) == 1.0
    assert aggregate("mean", [1, 2, 4]) == pytest.approx(7 / 3)


def test_nothing_observed_is_no_number():
    assert aggregate("p50", []) is None
    assert aggregate("count", []) == 0


@pytest.mark.parametrize(
    ("column", "unit", "factor"),
    [("npf_ns", "us", 1e-3), ("npf_ns", "ns", 1), ("wait_us", "ms", 1e-3), ("npf_ns", "", 1), ("columns", "us", 1),
     ("nic0.bytes", "us", 1), ("bytes", "B", 1)],
)  # fmt: skip
def test_times_are_converted_by_their_names(column, unit, factor):
    assert math.isclose(scale(column, unit), factor)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (221.603, "221.6"), (1234567.0, "1,234,567"), (0.00012346, "0.0001235"), (3.0, "3"), (None, "-")],
)
def test_numbers_are_read_easily(value, text):
    assert number(value) == text
