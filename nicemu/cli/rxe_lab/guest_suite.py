"""rdma-core's Python tests on a real device, one at a time, each in a forked child with a time limit.

Runs in the rxe guest: Python's standard library and pyverbs, nothing of nicemu. `python3 guest_suite.py JOB.json`;
JOB.json has `folder` with the tests, `ids` (`test_odp.OdpTestCase.test_odp_rc_traffic`), `device`, `limit` in seconds,
`tries` for a test that fails, `seed`, and `results`, the file that gets one JSON object a line: first the facts of the
machine, then one a test. A test that cannot be killed says so in its reason, and the next one starts.

The GID is the one that maps `address`: indices differ from boot to boot, since router advertisements make GIDs too.
"""

import contextlib
import gc
import importlib
import json
import os
import platform
import random
import select
import signal
import sys
import time
import traceback
import types
import unittest
from importlib import metadata
from typing import Any, NoReturn

KILL_SECONDS = 10.0
DETAIL_BYTES = 4000
GIDS = "/sys/class/infiniband/{device}/ports/1/gids"


def main(path: str) -> int:
    """Run a job; status 2 with one line if the device or the tests cannot be used."""
    with open(path) as file:
        job = json.load(file)
    with open(job["results"], "w", buffering=1) as results:
        try:
            arguments = device_arguments(job["device"], job["address"])
            results.write(json.dumps({"facts": facts()}) + "\n")
            install(job["folder"], arguments)
        except Exception as error:
            traceback.print_exc()
            print(f"guest_suite: {type(error).__name__}: {error}")
            return 2
        for test in job["ids"]:
            results.write(json.dumps(run_tries(test, job)) + "\n")
    return 0


def facts() -> dict[str, str]:
    """What the tests ran on."""
    found = {"kernel": platform.release(), "python": platform.python_version(), "machine": platform.machine()}
    try:
        found["pyverbs"] = metadata.version("pyverbs")
    except metadata.PackageNotFoundError:
        found["pyverbs"] = "of the distribution"
    return found


def device_arguments(device: str | None, address: str) -> list[str]:
    """The suite's command line: the device and the index of the GID that maps the IPv4 `address`."""
    if device is None:
        return []
    wanted = "0000:0000:0000:0000:0000:ffff:{:02x}{:02x}:{:02x}{:02x}".format(*map(int, address.split(".")))
    folder = GIDS.format(device=device)
    for index in sorted(os.listdir(folder), key=int):
        try:
            with open(f"{folder}/{index}") as file:
                if file.read().strip() == wanted:
                    return ["--dev", device, "--gid", index]
        except OSError:  # an index without a GID
            continue
    raise LookupError(f"expected a GID {wanted} on {device}, given none in {folder}")


def install(folder: str, arguments: list[str]) -> None:
    """Make `tests` the suite in `folder` with its command line, and load all its modules, as far as that goes."""
    sys.path.insert(0, folder)
    tests = types.ModuleType("tests")  # its own __init__ would fail as a whole if one module does
    tests.__path__ = [folder]
    sys.modules["tests"] = tests
    sys.argv[:] = ["run_tests.py", *arguments]
    if os.path.exists(f"{folder}/args_parser.py"):
        importlib.import_module("args_parser").parser.parse_args()
    for name in sorted(os.listdir(folder)):
        if name.startswith("test_") and name.endswith(".py"):
            with contextlib.suppress(Exception):  # said when a test of it is run
                importlib.import_module("tests." + name[:-3])
    gc.collect()
    gc.freeze()


def run_tries(test: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run a test again if it fails: the last outcome, with the statuses of all tries."""
    statuses = []
    while True:
        found = run_forked(test, job["limit"], job["seed"])
        statuses.append(found["status"])
        if found["status"] in ("PASS", "SKIP") or len(statuses) >= job["tries"]:
            return dict(found, tries=statuses)


def run_forked(test: str, limit: float, seed: int) -> dict[str, Any]:
    """Run a test in a process group of its own and wait for it, `limit` seconds at most."""
    began = time.monotonic()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_the_test(test, seed, writer)
    os.close(writer)
    said = _read_until(reader, began + limit)
    where = "" if said is not None else _where(pid)
    status = _kill(pid)
    os.close(reader)
    outcome = _outcome(said, limit, where, status)
    return dict(outcome, test=test, seconds=round(time.monotonic() - began, 2))


def _outcome(said: bytes | None, limit: float, where: str, status: int | None) -> dict[str, Any]:
    outcome: dict[str, Any]
    if said is None:
        outcome = {"status": "TIMEOUT", "reason": f"killed after {limit:g} s", "detail": where}
    else:
        try:
            outcome = json.loads(said)
        except ValueError:
            outcome = {"status": "ERROR", "reason": _how_it_died(status), "detail": said.decode(errors="replace")}
    if status is None:
        outcome["reason"] += " (its process cannot be killed)"
    return outcome


def _how_it_died(status: int | None) -> str:
    if status is not None and os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return "ended without a result"


def _read_until(reader: int, deadline: float) -> bytes | None:
    """What the test wrote until it ended; None if it had not by the deadline."""
    said = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        part = os.read(reader, 65536)
        if not part:
            return said
        said += part
        if said.endswith(b"\n"):  # complete, though a child of the test may hold the pipe open
            return said


def _where(pid: int) -> str:
    """Where in the kernel a process waits, for the report about a test that hung."""
    found = []
    for name in ("wchan", "stack"):
        try:
            with open(f"/proc/{pid}/{name}") as file:
                found.append(f"{name}: {' '.join(file.read().split())}")
        except OSError:
            continue
    return "; ".join(found)


def _kill(pid: int) -> int | None:
    """End what is left of the test's group; its status, or None if it does not go away."""
    deadline = time.monotonic() + KILL_SECONDS
    while True:
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)


def _be_the_test(test: str, seed: int, writer: int) -> NoReturn:
    """The forked child: what it prints is not kept, its result goes through the pipe."""
    try:
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        random.seed(seed)
        try:
            status, reason, detail = _run(test)
        except unittest.SkipTest as skip:
            status, reason, detail = "SKIP", str(skip), ""
        except BaseException as error:
            status, reason, detail = "ERROR", f"{type(error).__name__}: {error}", traceback.format_exc()
        result = {"status": status, "reason": " ".join(reason.split())[:400], "detail": detail[-DETAIL_BYTES:]}
        os.write(writer, json.dumps(result).encode() + b"\n")
    finally:
        os._exit(0)


def _run(test: str) -> tuple[str, str, str]:
    module, case, method = test.split(".")
    result = unittest.TestResult()
    unittest.TestSuite([getattr(importlib.import_module(f"tests.{module}"), case)(method)]).run(result)
    for status, found in (("ERROR", result.errors), ("FAIL", result.failures)):
        if found:
            return status, _last_line(found[0][1]), found[0][1]
    if result.unexpectedSuccesses:
        return "FAIL", "unexpected success", ""
    if result.skipped:
        return "SKIP", result.skipped[0][1], ""
    if result.testsRun == 0:
        return "ERROR", "the test did not run", ""
    return "PASS", "", ""


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
