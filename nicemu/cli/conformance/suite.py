"""rdma-core's tests as modules of this process: `pyverbs`, the vendor stand-ins and the system's programs answer for
the emulated device."""

import contextlib
import importlib
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from nicemu import _alias
from nicemu.cli.conformance import providers, shims


def install(folder: Path, programs: Path, devices: Sequence[str]) -> None:
    """Make `tests` the suite in `folder`, with an empty command line, and write stand-in programs into `programs`."""
    _alias.install()
    providers.install()
    shims.write_shims(programs, devices)
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    sys.path.insert(0, str(folder))
    tests = types.ModuleType("tests")  # its own __init__ would fail as a whole if one module does
    tests.__path__ = [str(folder)]
    sys.modules["tests"] = tests
    arguments = sys.argv[:]
    sys.argv[:] = ["run_tests.py"]
    try:
        importlib.import_module("args_parser").parser.parse_args()
    finally:
        sys.argv[:] = arguments


def import_all(folder: Path) -> None:
    """Import every test module in the order in which the suite itself does. One that fails says so when it is run."""
    for file in sorted(folder.glob("test_*.py")):
        with contextlib.suppress(Exception):
            importlib.import_module(f"tests.{file.stem}")
