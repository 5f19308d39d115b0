"""A pyverbs program as the workload of a run: a process of its own, in which it is run as `nicemu run` would.

Its observations are its requests, a row each, by the event log: ``latency_ns`` from the doorbell that announced it to
its completion. Counters are the lab's and ``script.exit_status``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nicemu.experiment.task import Result, Task
from nicemu.observe.run_folder import COUNTERS, TRACE

REPORT, LAB = "report.json", "lab.json"
EXIT_STATUS = "script.exit_status"


def run_script(task: Task, lab: dict[str, Any], folder: Path) -> Result:
    """Run it to its end in ``folder``. An exit status that is not 0 is the result's ``error``, with its last words."""
    lab = lab | {"trace": lab["trace"] or str(folder / TRACE)}
    (folder / LAB).write_text(json.dumps(lab), encoding="utf-8")
    script = folder / Path(task.work.name).name
    script.write_text(task.work.text, encoding="utf-8")
    arguments = [value for _, value in task.work.values]
    done = subprocess.run([sys.executable, "-m", __name__, str(script), *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if not (folder / REPORT).is_file():
        return Result({}, {}, 0, f"{script.name}: exit status {done.returncode}: {words}")
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    rows = list(latencies(Path(lab["trace"])))
    columns = {name: [row[name] for row in rows] for name in ("nic", "qpn", "request", "opcode", "latency_ns")}
    if report["idle"]:  # its exit status says nothing then
        return Result(columns, report["counters"], report["virtual_ns"], report["idle"])
    error = f"{script.name}: exit status {done.returncode}: {words}" if done.returncode else ""
    return Result(columns, report["counters"] | {EXIT_STATUS: done.returncode}, report["virtual_ns"], error)


def latencies(trace: Path) -> Iterator[dict[str, Any]]:
    """The requests that were completed, in order of completion."""
    from nicemu.observe.trace_reader import read

    posted: dict[tuple[str, int], list[int]] = {}
    done: dict[tuple[str, int, int], dict[str, Any]] = {}
    for event in read(trace):
        fields: dict[str, Any] = event.fields
        if event.name == "doorbell" and fields["bank"] == "SEND":
            times = posted.setdefault((f"nic{fields['nic']}", fields["number"]), [])
            times += [event.time] * (fields["producer"] - len(times))
        elif event.name == "WQE_DONE":
            key = event.who, fields["qpn"], fields["index"]
            times = posted.get(key[:2], [])
            if fields["signaled"] and key[2] < len(times):
                done[key] = {"nic": event.who, "qpn": key[1], "request": key[2], "opcode": str(fields["opcode"]),
                             "latency_ns": event.time - times[key[2]]}  # fmt: skip
    yield from done.values()


def main(script: Path, arguments: list[str]) -> int:
    """The process of the program: runs it, leaves the report beside it; its exit status."""
    from nicemu import _alias, _program
    from nicemu.config import load_config
    from nicemu.experiment.run_end import idle_faults, write_counters
    from nicemu.uverbs import session, waits
    from nicemu.workloads.bench import Bench

    config = load_config(None, json.loads((script.parent / LAB).read_text(encoding="utf-8")))
    _alias.install()
    loaded = _program.load_script(str(script))
    session.configure(config)
    waits.install()
    status = _program.run_program(loaded, arguments)
    session.endpoint()  # a program that opened no device has a lab nevertheless
    lab = session.current()
    report = {"virtual_ns": int(lab.world.now), "counters": Bench(lab).counters(), "idle": idle_faults(lab)}
    write_counters(lab, script.parent / COUNTERS)
    session.reset()
    (script.parent / REPORT).write_text(json.dumps(report), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
