"""The folder of an experiment: a small file for each finished run, so that a second call does only what is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nicemu.experiment.task import Result, Task


class Store:
    """``folder``/runs: one file a run, named by the digest of its inputs. A file is complete or not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"

    def open(self, fresh: bool) -> None:
        """Make the folder; ``fresh``: forget earlier runs."""
        self.runs.mkdir(parents=True, exist_ok=True)
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
            for name, data in result.files:
                (folder / name).write_bytes(data)
        inputs = {"seed": task.seed, "lab": json.loads(task.lab), "work": task.work._asdict()}
        text = json.dumps({"inputs": inputs, **result._asdict(), "files": []})
        new = self._file(task).with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self._file(task))

    def get(self, task: Task) -> Result:
        """A finished run."""
        data = json.loads(self._file(task).read_text(encoding="utf-8"))
        folder = self.runs / f"{task.digest}.files"
        kept = sorted(folder.iterdir()) if folder.is_dir() else []
        files = tuple((file.name, file.read_bytes()) for file in kept)
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
