"""The folder of an experiment: a small file for each finished run, so that a second call does only what is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nicemu.config.errors import ConfigError
from nicemu.experiment.task import Result, Task

RUNS = "runs"
"""What makes a folder an experiment's."""


class Store:
    """``folder``/runs: one file a run, named by the digest of its inputs. A file is complete or not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / RUNS

    def open(self, fresh: bool) -> None:
        """Make the folder; ``fresh``: forget earlier runs.

        :raises ConfigError: it cannot be made, or holds something else.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            first = min((entry.name for entry in self.folder.iterdir()), default="")
            if first and not self.runs.is_dir():
                expected = "an empty folder or that of an earlier call"
                raise ConfigError(f"command line: field --output: expected {expected}, given one with {first!r}")
            self.runs.mkdir(exist_ok=True)
        except OSError as error:
            text = f"expected a folder that can be made, given {str(self.folder)!r}: {error.strerror}"
            raise ConfigError(f"command line: field --output: {text}") from None
        if fresh:
            for file in self.runs.iterdir():
                if file.suffix in (".json", ".files", ".new"):
                    _remove(file)

    def has(self, task: Task) -> bool:
        """The run is finished."""
        return self._file(task).is_file()

    def put(self, task: Task, result: Result) -> None:
        """Keep a finished run."""
        if result.files:
            folder = self.runs / f"{task.digest}.files"
            folder.mkdir(exist_ok=True)
            for name, data in result.files.items():
                (folder / name).write_bytes(data)
        inputs = {"seed": task.seed, "lab": json.loads(task.lab), "work": task.work._asdict()}
        text = json.dumps({"inputs": inputs, **result._asdict(), "files": []})
        new = self._file(task).with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self._file(task))

    def get(self, task: Task) -> Result:
        """A finished run.

        :raises ConfigError: its file is not what :meth:`put` wrote.
        """
        file = self._file(task)
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if len({len(column) for column in data["columns"].values()}) > 1:
                raise ValueError("columns of different lengths")
            numbers = all(isinstance(value, int) for value in [*data["counters"].values(), data["virtual_ns"]])
            if not numbers or not isinstance(data["error"], str):
                raise ValueError("counters that are no numbers")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            text = f"expected a finished run, given {type(error).__name__}: {error}; without this file it is done again"
            raise ConfigError(text, file=str(file)) from error
        folder = self.runs / f"{task.digest}.files"
        files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())} if folder.is_dir() else {}
        return Result(data["columns"], data["counters"], data["virtual_ns"], data["error"], files)

    def _file(self, task: Task) -> Path:
        return self.runs / f"{task.digest}.json"


def _remove(path: Path) -> None:
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink()
