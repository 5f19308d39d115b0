"""Costs from a seeded distribution: percentiles as given, ascending, a function of the seed, the same without JIT."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu import _jit
from nicemu.config import load_config
from nicemu.nic import spread
from nicemu.nic.spread import AT_50, AT_95, AT_99, AT_100, ONE
from nicemu.tables import World
from nicemu.tables.world import Capacity


def plain(function):
    """The Python source of a kernel, compiled or not."""
    return getattr(function, "py_func", function)


@pytest.fixture(autouse=True)
def without_jit(monkeypatch):
    """The kernels' own sources: what compiled code makes of them is compared by itself."""
    monkeypatch.setattr(spread, "between", plain(spread.between))


def quantile(points, at):
    return int(plain(spread.quantile)(SimpleNamespace(**dict(zip(NAMES, points, strict=True))), at))


NAMES = ("p0", "p50", "p95", "p99", "p100")
points = st.lists(st.integers(ONE // 100, 100 * ONE), min_size=5, max_size=5).map(sorted)
places = st.integers(0, AT_100 - 1)


@given(points, places, places)
def test_a_later_place_never_has_a_smaller_factor(given_points, a, b):
    low, high = sorted((a, b))
    assert quantile(given_points, low) <= quantile(given_points, high)


@given(points)
def test_percentiles_are_those_given(given_points):
    found = [quantile(given_points, at) for at in (0, AT_50, AT_95, AT_99)]
    assert found == given_points[:4]
    assert abs(quantile(given_points, AT_100 - 1) - given_points[4]) <= 1


@given(points, places)
def test_factors_stay_within_the_ends(given_points, at):
    assert given_points[0] <= quantile(given_points, at) <= given_points[4]


def npf_world(seed=1):
    """A world whose NIC 1 has the spread of the profile npf."""
    world = World(Capacity(nics=1))
    world.fabric[0].seed = seed
    spread.configure(world.spread[1], load_config(None, {"nic": "npf"}).nic.spread)
    return world


def factors(world, count, stream=spread.FAULTS):
    return [int(spread.host_factor(world.address, 1, stream, number)) for number in range(1, count + 1)]


def test_many_draws_have_the_percentiles_of_the_profile():
    profile = load_config(None, {"nic": "npf"}).nic.spread
    drawn = np.array(factors(npf_world(), 4000)) / ONE
    assert np.percentile(drawn, [50, 95, 99]) == pytest.approx([profile.p50, profile.p95, profile.p99], rel=0.02)
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.min() >= profile.p0 - 1e-4 and drawn.max() <= profile.p100 + 1e-4


def test_the_seed_and_the_stream_decide_and_nothing_else():
    first = factors(npf_world(), 50)
    assert first == factors(npf_world(), 50)
    assert first != factors(npf_world(seed=2), 50)
    assert first != factors(npf_world(), 50, spread.COMMANDS)


def test_without_a_spread_every_factor_is_one():
    world = World(Capacity(nics=1))
    assert factors(world, 3) == [ONE, ONE, ONE]


PRINT = """
import json
from tests.nic.test_spread import factors, npf_world
print(json.dumps(factors(npf_world(), 64)))
"""


def test_compiled_and_plain_python_draw_the_same():
    env = os.environ | {"NUMBA_DISABLE_JIT": "0" if not _jit.JIT else "1"}
    other = subprocess.run([sys.executable, "-c", PRINT], env=env, capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == factors(npf_world(), 64)


def test_faults_and_commands_do_not_follow_each_other():
    world = npf_world()
    assert abs(np.corrcoef(factors(world, 500), factors(world, 500, spread.COMMANDS))[0, 1]) < 0.1


@pytest.mark.parametrize("wrong", [{"p50": 1.2}, {"p0": 0}, {"p100": 0.5}, {"p42": 1.0}])
def test_a_spread_that_is_none_is_refused(wrong):
    with pytest.raises(Exception, match="spread"):
        load_config(None, {"nic": {"spread": wrong}})
