"""What the process of one test does, from the fork to its end; it leaves `result.json` in its scratch folder."""

import importlib
import json
import multiprocessing.util
import os
import random
import signal
import sys
import traceback
import unittest
from pathlib import Path
from typing import NoReturn

RESULT = "result.json"
OUTPUT = "output.txt"


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


def run_test(name: str) -> tuple[str, str, str]:
    """Run the test `module.Class.method`."""
    module_name, class_name, method = name.split(".")
    case = getattr(importlib.import_module(f"tests.{module_name}"), class_name)
    result = _Result()
    unittest.TestSuite([case(method)]).run(result)
    return result.outcome()


def run(scratch: Path, name: str, seed: int) -> NoReturn:
    """Be the process of one test: a group of its own, no input, all output in a file, `scratch` as working folder."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _redirect(scratch / OUTPUT)
    os.chdir(scratch)
    sys.argv[:] = ["run_tests.py"]
    random.seed(seed)
    try:
        status, reason, detail = run_test(name)
    except unittest.SkipTest as skip:
        status, reason, detail = "SKIP", str(skip), ""
    except BaseException as error:
        detail = traceback.format_exc()
        status, reason = "ERROR", f"{type(error).__name__}: {error}".splitlines()[0]
    result = {"status": status, "reason": reason, "detail": detail}
    (scratch / RESULT).write_text(json.dumps(result))
    _end()


def _redirect(output: Path) -> None:
    with output.open("wb") as said, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)


def _end() -> NoReturn:
    """As multiprocessing ends a forked process: the interpreter of the server is not ours to take down."""
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
