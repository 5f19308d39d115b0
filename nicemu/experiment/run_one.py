"""One run: a fresh lab, the workload in it, its observations and counters. Imports the engine; runs in any process."""

from __future__ import annotations

import contextlib
import json
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nicemu import workloads
from nicemu.config import load_config
from nicemu.experiment.task import CAPTURE, TRACE, Result, Task
from nicemu.uverbs import session
from nicemu.workloads.bench import Bench


def run(task: Task) -> Result:
    """Do it. What the workload raises becomes the result's ``error``."""
    with tempfile.TemporaryDirectory(prefix="nicemu-") as folder:
        try:
            return _run(task, Path(folder))
        except Exception as error:
            return Result({}, {}, 0, _told(error))


def _run(task: Task, folder: Path) -> Result:
    lab = json.loads(task.lab)
    if task.firmware:
        image = folder / lab["firmware"]
        image.write_text(task.firmware, encoding="utf-8")
        lab["firmware"] = str(image)
    if task.shown:
        lab |= {"trace": str(folder / TRACE), "pcap": str(folder / CAPTURE)}
    with _bench(lab) as bench:
        columns = _columns(list(_workload(task)(bench, **dict(task.work.values))))
        result = Result(columns, bench.counters(), bench.now())
    files = {name: (folder / name).read_bytes() for name in (TRACE, CAPTURE)} if task.shown else {}
    return result._replace(files=files)


@contextlib.contextmanager
def _bench(lab: dict[str, Any]) -> Iterator[Bench]:
    session.reset()
    session.configure(load_config(None, lab))
    try:
        session.endpoint()  # builds the lab
        bench = Bench(session.current())
        yield bench
        bench.close()
    finally:
        session.reset()


def _workload(task: Task) -> Any:
    name, text = task.work.name, task.work.text
    return (workloads.of_text(text, name) if text else workloads.shipped())[name].function


def _columns(rows: list[workloads.Row]) -> dict[str, list[Any]]:
    """Rows as columns, in the order in which the names came up; None where a row has no such column."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _told(error: Exception) -> str:
    """In one line: what, and where in the workload."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if "workload" in frame.filename), frames[-1])
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}, line {place.lineno}, in {place.name})"
