"""The fabric does the same compiled and as plain Python, without an integer overflow on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(disabled: str) -> dict:
    """The mixture in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", "tests.fabric.mixture"],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NUMBA_DISABLE_JIT": disabled}, check=False,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.nojit
def test_compiled_code_and_plain_python_have_one_history() -> None:
    compiled, plain = run("0"), run("1")
    assert compiled["jit"] and not plain["jit"]
    assert plain["runs"] == compiled["runs"]
    assert all(each["fired"] > 50 and each["leaked"] == 0 for each in plain["runs"])
