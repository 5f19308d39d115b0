"""JIT and plain Python give the same tables, memory, rings and event log, and no integer overflows on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nojit
ROOT = Path(__file__).parents[2]


def run(**environment: str) -> dict:
    """The scenario in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", "tests.nojit.scenario"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_scenario_ends_in_the_same_state_with_and_without_jit():
    compiled, plain = run(NUMBA_DISABLE_JIT="0"), run(NUMBA_DISABLE_JIT="1")
    assert compiled["jit"] and not plain["jit"]
    assert int(plain["state"]["events"]) > 200 and int(plain["state"]["trace rows"]) > 200
    assert plain["state"] == compiled["state"]


def test_the_scenario_gives_the_same_state_twice():
    """Whatever the addresses and the hash seed."""
    assert run(PYTHONHASHSEED="1") == run(PYTHONHASHSEED="2", SOMETHING="else" * 100)
