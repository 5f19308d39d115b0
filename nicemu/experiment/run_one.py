"""One run: a fresh lab, the workload in it, its observations and counters. Imports the engine; runs in any process."""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nicemu import workloads
from nicemu.config import load_config
from nicemu.experiment.script import run_script
from nicemu.experiment.task import CAPTURE, TRACE, Result, Task, sources
from nicemu.uverbs import session
from nicemu.workloads.bench import Bench


def run(task: Task) -> Result:
    """Do it. What the workload raises becomes the result's ``error``.

    Garbage is not collected meanwhile: when that destroys an object of the lab depends on what ran here before.
    """
    if task.nicemu != sources():
        return Result({}, {}, 0, "this worker has another nicemu, which may give other results")
    gc.disable()
    try:
        with tempfile.TemporaryDirectory(prefix="nicemu-") as folder:
            return _run(task, Path(folder))
    except Exception as error:
        return Result({}, {}, 0, _told(task, error))
    finally:
        gc.enable()


def _run(task: Task, folder: Path) -> Result:
    lab = json.loads(task.lab)
    for name, text in task.images:
        (folder / name).write_text(text, encoding="utf-8")
        lab["firmware"] = [str(folder / name) if image == name else image for image in lab["firmware"]]
    if task.shown:
        lab |= {"trace": str(folder / TRACE), "pcap": str(folder / CAPTURE)}
    if task.work.kind == "script":
        result = run_script(task, lab, folder)
        return result._replace(files=_files(task, folder))
    with _bench(lab) as bench:
        columns = _columns(list(_workload(task)(bench, **dict(task.work.values))))
        result = Result(columns, bench.counters(), bench.now())
    return result._replace(files=_files(task, folder))


def _files(task: Task, folder: Path) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, (folder / name).read_bytes()) for name in (TRACE, CAPTURE)) if task.shown else ()


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
    return (workloads.of_text(text, f"workload-{name}.py") if text else workloads.shipped())[name].function


def _columns(rows: list[workloads.Row]) -> dict[str, list[Any]]:
    """Rows as columns, in the order in which the names came up; None where a row has no such column."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _told(task: Task, error: Exception) -> str:
    """In one line: what, and where in the workload."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if frame.name == task.work.name), frames[-1])
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}, line {place.lineno})"
