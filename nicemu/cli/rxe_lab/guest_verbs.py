"""tests/verbs in a process of pytest that may die: then another one goes on with the test after.

Runs in the rxe guest and on the host alike: Python's standard library, and pytest as a program. The call is `python3
guest_verbs.py JOB.json`; JOB.json has `folder` with the tests, `ids` (`test_sizes.py::test_a_send_arrives[rc-0]`),
`all` if these are all that `folder` has, `options` for pytest, `silence`, the seconds after which pytest is killed if
no test has ended, `tries` for a test that fails, and `results`, a folder. There `TRY-NUMBER.jsonl` is what the process
of that number observed, and `facts.jsonl` is about the machine.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from typing import Any

TICK = 0.2
ENDED_WELL = (0, 1)
"""pytest's status: no test failed, some did."""


def main(path: str) -> int:
    """Run a job; 0 if every test has left a result, else pytest's status."""
    with open(path) as file:
        job = json.load(file)
    os.makedirs(job["results"], exist_ok=True)
    facts = {"kernel": platform.release(), "python": platform.python_version(), "machine": platform.machine()}
    _append(f"{job['results']}/facts.jsonl", {"facts": facts})
    tests = list(job["ids"])
    for attempt in range(1, job["tries"] + 1):
        status, tests = _run(job, tests, attempt)
        if status or not tests:
            return status
    return 0


def _run(job: dict[str, Any], tests: list[str], attempt: int) -> tuple[int, list[str]]:
    """Run these tests to the last one: 0, or pytest's status if it could not begin; and those that failed."""
    waiting, failed, number = list(tests), [], 0
    while waiting:
        number += 1
        observed = f"{job['results']}/{attempt}-{number}.jsonl"
        status, why = _pytest(job, waiting, observed)
        done = _done(observed)
        failed += [test for test in waiting if done.get(test) == "failed"]
        if status in ENDED_WELL:
            break
        waiting = [test for test in waiting if test not in done]
        if not waiting or (number == 1 and not done and status > 0):
            return status, failed  # there is nothing to go on with
        failed.append(waiting.pop(0))
        lost = {"id": failed[-1], "outcome": "failed", "reason": why, "seconds": 0.0, "observations": []}
        _append(observed, lost)
    return 0, failed


def _append(path: str, record: dict[str, Any]) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(record) + "\n")


def _pytest(job: dict[str, Any], tests: list[str], observed: str) -> tuple[int, str]:
    """Run pytest on these tests: its status, negative if a signal ended it, and how that is said of a test."""
    whole = job["all"] and len(tests) == len(job["ids"])
    chosen = [job["folder"]] if whole else [f"{job['folder']}/{test}" for test in tests]
    options = ["-q", "-p", "no:cacheprovider", "--color", "no", *job["options"], "--observations", observed]
    # the folder comes first: pytest 8 looks there for its options, and would take their values for folders
    process = subprocess.Popen([sys.executable, "-m", "pytest", *chosen, *options], stdin=subprocess.DEVNULL)
    size, since = -1, time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(TICK)
            now = os.path.getsize(observed) if os.path.exists(observed) else -1
            if now != size:
                size, since = now, time.monotonic()
            if time.monotonic() - since > job["silence"]:
                process.kill()
                process.wait()
                return process.returncode, f"nothing for {job['silence']:g} s: killed"
    finally:
        process.kill()
    status = process.returncode
    if status < 0:
        return status, f"the process died: {signal.Signals(-status).name}"
    return status, f"pytest ended with status {status}"


def _done(observed: str) -> dict[str, str]:
    """The outcomes of the tests that left a result; the last line may be cut off."""
    found = {}
    if os.path.exists(observed):
        with open(observed) as file:
            for line in file:
                if line.endswith("\n"):
                    record = json.loads(line)
                    found[record["id"]] = record["outcome"]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
