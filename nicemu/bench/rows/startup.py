"""How long one waits for the first line: cold compile, warm run, help. Processes of their own, as users start them:
with bytecode of what they import, as an installation has it, whatever this process was told about that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicemu.bench.measure import Absent, Batch, Case, Counts, Limit, Opener, Watch

HELLO = """\
from pyverbs.device import Context, get_device_list
from pyverbs.pd import PD
from pyverbs.mr import MR
import pyverbs.enums as e

name = get_device_list()[0].name.decode()
with Context(name=name) as context, PD(context) as pd, MR(pd, 4096, e.IBV_ACCESS_LOCAL_WRITE) as mr:
    print("hello", name, mr.lkey)
"""
COMMAND = [sys.executable, "-m", "nicemu"]
CHECKOUT = Path(__file__).parents[3]
RUNS = 3
_bytecode = tempfile.TemporaryDirectory(prefix="nicemu-bench-")


def cases() -> Iterator[Case]:
    """Cold, warm, help."""
    python = Limit("python -c pass", "s", _process([sys.executable, "-c", "pass"]))
    yield Case("nicemu --help", "startup", "s", _process([*COMMAND, "--help"]), (python,), seconds=0)
    yield Case("warm nicemu run of a hello program", "startup", "s", _hello(), (python,), (),
               "opens a device, registers 4 KiB", seconds=0)  # fmt: skip
    yield Case("cold first run", "startup", "s", _hello(cold=True), (python,), (),
               "with an empty cache: a process per core compiles the engine", seconds=0, runs=RUNS)  # fmt: skip
    yield Case("cold first run of a release", "startup", "s", _released, (python,), (),
               "the same where `tools/dev wheel` made what is installed: without numba", seconds=0,
               runs=RUNS)  # fmt: skip


def _process(command: list[str], **environment: str) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        yield lambda watch: _run(command, watch, environment)

    return opener


def _hello(cold: bool = False, **environment: str) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        with tempfile.TemporaryDirectory(prefix="nicemu-bench-") as folder:
            program = Path(folder) / "hello.py"
            program.write_text(HELLO, encoding="utf-8")

            def batch(watch: Watch) -> Counts:
                if not cold:
                    return _run([*COMMAND, "run", str(program)], watch, environment)
                with tempfile.TemporaryDirectory(dir=folder) as cache:
                    return _run([*COMMAND, "run", str(program)], watch, environment | {"NICEMU_CACHE": cache})

            yield batch

    return opener


@contextmanager
def _released() -> Iterator[Batch]:
    """What a wheel of this checkout would bring, in a folder of its own."""
    tool = CHECKOUT / "tools" / "lower.py"
    if not tool.is_file():
        raise Absent("only from a checkout: no tools/lower.py here")
    with tempfile.TemporaryDirectory(prefix="nicemu-bench-") as folder:
        for name in ("nicemu", "firmware", "configs"):
            unwanted = shutil.ignore_patterns("__pycache__", "_lowered")
            shutil.copytree(CHECKOUT / name, Path(folder) / name, ignore=unwanted)
        there = {"PYTHONPATH": folder, "PYTHONSAFEPATH": "1"}
        _run([sys.executable, str(tool)], Watch(), there)
        with _hello(cold=True, **there)() as batch:
            yield batch


def _run(command: list[str], watch: Watch, environment: dict[str, str]) -> Counts:
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    usual["PYTHONPYCACHEPREFIX"] = _bytecode.name
    with watch:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=usual | environment)
    if done.returncode:
        raise Absent(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()[-200:]}")
    return {"calls": 1}
