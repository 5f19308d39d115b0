"""Results as Parquet: byte for byte the same for the same results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nicemu.experiment.measure import Measured
from nicemu.experiment.sweep import REPETITION, Document
from nicemu.experiment.task import Task, missing

ROW_GROUP = 1 << 20


def write(folder: Path, document: Document, measured: Sequence[Measured], done: Sequence[Sequence[Task]]) -> None:
    """``results.parquet``: a row an observation; ``runs.parquet``: a row a run, with its counters."""
    observations: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for each, tasks in zip(measured, done, strict=True):
        for task, result in zip(tasks, each.results, strict=True):
            run = {"point": task.point, **each.point.labels, REPETITION: task.repetition}
            for number, row in enumerate(zip(*result.columns.values(), strict=True)):
                observations.append({**run, "observation": number, **dict(zip(result.columns, row, strict=True))})
            runs.append({**run, "seed": task.seed, "virtual_ns": result.virtual_ns, **result.counters})
    _write(folder / "results.parquet", observations)
    _write(folder / "runs.parquet", runs)


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise missing("pyarrow", "experiment") from None
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pyarrow.array(_of_one_type([row.get(name) for row in rows])) for name in names}
    parquet.write_table(pyarrow.table(columns), file, compression="zstd", row_group_size=ROW_GROUP)


def _of_one_type(values: list[Any]) -> list[Any]:
    """A column that has numbers and text is text; integers among floats are floats."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2:
        return values
    as_one = float if kinds <= {int, float} else str
    return [None if value is None else as_one(value) for value in values]
