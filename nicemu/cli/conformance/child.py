"""The process of one test: `python -m nicemu.cli.conformance.child SCRATCH TESTS_FOLDER [TEST_ID]`.

Writes `SCRATCH/result.json`. Without a test id it opens the first device, so that the engine is compiled and cached
before the clock of a test runs.
"""

import importlib
import json
import os
import sys
import traceback
import types
import unittest
from pathlib import Path

from nicemu import _alias
from nicemu.cli.conformance import shims

RESULT = "result.json"


class _Result(unittest.TestResult):
    """What became of one test, as (status, reason, detail)."""

    def outcome(self) -> tuple[str, str, str]:
        if self.errors:
            return "ERROR", _last_line(self.errors[0][1]), self.errors[0][1]
        if self.failures:
            return "FAIL", _last_line(self.failures[0][1]), self.failures[0][1]
        if self.unexpectedSuccesses:
            return "FAIL", "unexpected success", ""
        if self.skipped:
            return "SKIP", self.skipped[0][1], ""
        if self.testsRun == 0:
            return "ERROR", "the test did not run", ""
        return "PASS", "", ""


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def prepare(scratch: Path, folder: Path, config: str | None) -> None:
    """Make `pyverbs` and the system's programs answer for the emulated device."""
    from nicemu.config import load_config
    from nicemu.uverbs import session

    _alias.install()
    session.configure(load_config(config))
    from nicemu.pyverbs.device import get_device_list

    shims.write_shims(scratch / "bin", [device.name.decode() for device in get_device_list()])
    os.environ["PATH"] = f"{scratch / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    sys.path.insert(0, str(folder))
    tests = types.ModuleType("tests")  # its own __init__ would import every test of every vendor
    tests.__path__ = [str(folder)]
    sys.modules["tests"] = tests


def run_test(name: str) -> tuple[str, str, str]:
    """Run the test `module.Class.method`; its command line is empty, as `run_tests.py` without arguments."""
    module_name, class_name, method = name.split(".")
    sys.argv[:] = ["run_tests.py"]
    parser = importlib.import_module("args_parser").parser
    parser.parse_args()
    first = min(path.stem for path in Path(sys.modules["tests"].__path__[0]).glob("test_*.py"))
    importlib.import_module(f"tests.{first}")  # as their own __init__ does: their bases import each other in a circle
    case = getattr(importlib.import_module(f"tests.{module_name}"), class_name)
    result = _Result()
    unittest.TestSuite([case(method)]).run(result)
    return result.outcome()


def open_device() -> tuple[str, str, str]:
    from nicemu.pyverbs.device import Context, get_device_list

    with Context(name=get_device_list()[0].name.decode()) as context:
        context.query_device()
    return "PASS", "", ""


def main(scratch: Path, folder: Path, name: str | None) -> None:
    try:
        prepare(scratch, folder, os.environ.get("NICEMU_CONFORMANCE_CONFIG"))
        status, reason, detail = run_test(name) if name else open_device()
    except unittest.SkipTest as skip:
        status, reason, detail = "SKIP", str(skip), ""
    except BaseException as error:
        detail = traceback.format_exc()
        status, reason = "ERROR", f"{type(error).__name__}: {error}".splitlines()[0]
    result = {"status": status, "reason": reason, "detail": detail}
    (scratch / RESULT).write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
