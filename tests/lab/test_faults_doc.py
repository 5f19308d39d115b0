"""docs/faults.md: its table is the schema's, its example runs, and a fault that does not happen fails the run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

from nicemu.config import load_config
from nicemu.config.injection import KINDS, table
from nicemu.lab.inject import PLANTERS

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


def nicemu_run(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "nicemu", "run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=900)


def test_the_table_is_made_of_the_schema():
    assert table.table() in DOC, "docs/faults.md: put the output of `python -m nicemu.config.injection.table` there"


def test_every_fault_of_the_schema_can_be_planted():
    events = {event for kind in KINDS for event in get_args(kind.model_fields["event"].annotation)}
    assert events == {*PLANTERS, "packet"}


def test_the_yaml_of_the_documentation_is_valid(tmp_path):
    (tmp_path / "lab.yaml").write_text(re.search(r"```yaml\n(.*?)```", DOC, re.DOTALL)[1])
    assert len(load_config(tmp_path / "lab.yaml").inject) == 5


def test_the_shipped_example_has_a_fault_of_every_boundary_and_the_program_survives_them():
    config = load_config("faults")
    boundaries = {kind.boundary for kind in KINDS} - {"mm (machine check)", "mm (OOM killer)"}  # nobody survives these
    assert {what.boundary for what in config.inject} == boundaries
    done = nicemu_run("--stats", "--config", "faults", "examples/faults.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "16 transfers, 9 faults survived: all bytes right"
    assert done.stdout in DOC.replace("\n    ", "\n").replace("$ nicemu", "\n$ nicemu")
    assert done.stderr.count("  inject     ") == len(config.inject) and "did not fire" not in done.stderr
    assert "mistranslated page 0" in done.stderr and "watchdog" not in done.stderr


def test_a_run_whose_fault_never_fired_fails_in_one_line_though_the_program_ended_well(tmp_path):
    (tmp_path / "lab.yaml").write_text("inject: [{event: command_failure, command: CREATE_SRQ}]\n")
    (tmp_path / "idle.py").write_text("from pyverbs.device import Context\nContext(name='nicemu0').close()\n")
    done = nicemu_run("--config", "lab.yaml", "idle.py", cwd=tmp_path)
    why = "did not fire: never saw a command CREATE_SRQ"
    assert done.stderr == f"nicemu: lab.yaml: inject.0: command_failure nicemu0 CREATE_SRQ INTERNAL_ERROR: {why}\n"
    assert done.returncode == 1
