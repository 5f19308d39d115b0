"""Scenarios as pyverbs programs."""

import subprocess
import sys
from pathlib import Path

import pytest

from nicemu.check.export import export
from nicemu.check.operations import Write
from nicemu.check.scenarios import ALL


@pytest.mark.parametrize("name", ALL)
def test_every_program_compiles_and_says_what_it_is(name: str) -> None:
    text = export(ALL[name])
    compile(text, name, "exec")
    assert text.startswith(f'"""{name}: {ALL[name].what}')
    for number, thread in enumerate(ALL[name].threads):
        assert f"def thread_{number}():  # {thread}" in text


def test_what_a_child_does_is_a_comment() -> None:
    assert Write("a", 1, value=60, mm="child").code() == ["pass  # child: fill(a + 1 * PAGE, 1 * PAGE, 60)"]


@pytest.mark.parametrize("name", ["dontneed", "cold-dontneed", "mprotect"])
def test_a_program_runs_on_the_emulated_device(tmp_path: Path, name: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(export(ALL[name]))
    command = [sys.executable, "-m", "nicemu", "run", "--memory", "model", str(program), "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
