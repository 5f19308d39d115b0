"""Start-up costs, in modules and not in seconds: a program waits for what is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nicemu import _jit

HEAVY = {"numba", "llvmlite", "numpy", "pydantic", "yaml", "typer", "nicemu.nic", "nicemu.driver", "nicemu.lab"}
FIRST_CALL = """
import sys
from nicemu.pyverbs.device import Context, get_device_list
with Context(name=get_device_list()[0].name.decode()) as context:
    context.query_device()
"""


def run(text: str, **environment: str) -> str:
    command = [sys.executable, "-c", text]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment).stdout


def test_importing_the_api_brings_nothing_that_computes() -> None:
    heavy, count = eval(
        run(f"import sys, nicemu.pyverbs.device; print(({HEAVY} & set(sys.modules), len(sys.modules)))")
    )
    assert heavy == set()
    assert count <= 140


def test_importing_the_api_compiles_no_methods() -> None:
    """Each frozen dataclass would compile a dozen functions: `exec` is what made the import slow."""
    counted = """
import builtins, sys
calls, real = [], builtins.exec
builtins.exec = lambda code, *scopes: calls.append(code) or real(code, *scopes)
import nicemu.pyverbs.device
print(sum(isinstance(code, str) for code in calls))
"""
    assert int(run(counted)) <= 20


@pytest.mark.skipif(not _jit.JIT, reason="about compiled code")
def test_a_warm_start_needs_no_numba(tmp_path: Path) -> None:
    """The first run may compile; the second finds machine code for every unit, hook and entry."""
    run(FIRST_CALL)
    assert run(FIRST_CALL + "print({'numba', 'llvmlite'} & set(sys.modules))").strip() == "{'llvmlite'}"
