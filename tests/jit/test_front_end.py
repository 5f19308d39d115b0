"""Helpers: lowered once each, whoever calls them with what constants, and part of whoever calls them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nicemu import _jit
from nicemu._jit import call, install, jit

pytestmark = pytest.mark.skipif(not _jit.JIT, reason="about compiled code")
TABLE = (3, 5, 7)


@jit
def scaled(a, factor):
    return max(a * factor, -1000)


@jit
def picked(a, at):
    return scaled(a, TABLE[at & 1])


def unit(world, a, b):
    total = 0
    for at in range(b):
        total += picked(a, at) + scaled(a, 10) + scaled(a, 100)
    return total


@jit
def call_unit(address, a, b):
    return call(address, 0, a, b)


def test_a_helper_is_lowered_once_for_all_constants(monkeypatch, tmp_path):
    monkeypatch.setenv("NICEMU_CACHE", str(tmp_path))
    address = install(unit, "front-end")
    assert call_unit(address, 2, 3) == sum((2 * TABLE[at & 1]) + 20 + 200 for at in range(3))
    assert len(scaled.dispatcher.overloads) == 1


def test_what_numba_compiles_all_the_way_may_call_helpers():
    numba = pytest.importorskip("numba")
    twice = numba.njit(lambda a: picked(a, 1) + scaled(a, 1))
    assert twice(4) == 24
    assert picked(4, 0) == 12


def test_a_compiling_process_ends_with_its_input():
    done = subprocess.run(
        [sys.executable, "-m", "nicemu.nic.compile"], input="", capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_compiling_process_says_what_it_cannot_do():
    done = subprocess.run(
        [sys.executable, "-m", "nicemu.nic.compile"], input="999\n", capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode != 0 and "KeyError: 999" in done.stderr
