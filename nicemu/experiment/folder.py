"""What an experiment leaves: tables, pictures, the page, results, the shown run, and the exact inputs."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import nicemu
from nicemu import workloads
from nicemu.config.paths import find
from nicemu.experiment import page, parquet, plots, summary
from nicemu.experiment.conduct import Outcome, Wish

PACKAGES = ("numpy", "numba", "pyarrow", "matplotlib")


def write(outcome: Outcome, wish: Wish) -> None:
    """All of it, into ``wish.folder``. Raises ConfigError: a package is missing."""
    folder = wish.folder
    parquet.write(folder, outcome.document, outcome.measured, outcome.tasks)
    _write_inputs(outcome, folder / "inputs")
    if outcome.shown is not None:
        for name, data in outcome.shown[1].files.items():
            (folder / name).write_bytes(data)
    said = list(notes(outcome, wish))
    text = summary.text(outcome.document, outcome.measured, outcome.verdicts, said)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    pictures = plots.draw(outcome.document, outcome.measured, folder / "plots")
    whole = page.page(outcome, said, pictures, folder / "inputs")
    (folder / "index.html").write_text(whole, encoding="utf-8")


def notes(outcome: Outcome, wish: Wish) -> Iterator[str]:
    """What the reader must know beside the numbers."""
    seed = outcome.document.experiment.seed if wish.seed is None else wish.seed
    runs = sum(len(tasks) for tasks in outcome.tasks)
    yield f"{runs} runs at {len(outcome.measured)} points, seed {seed}, nicemu {nicemu.__version__}."
    if wish.quick:
        yield "**Quick: few iterations. Nothing is gated, and no number here is a result.**"
    if wish.only:
        yield f"Only {', '.join(f'{name}={value}' for name, value in wish.only.items())}."
    if outcome.failures:
        yield f"**{len(outcome.failures)} runs failed and are missing here.**"


def _write_inputs(outcome: Outcome, folder: Path) -> None:
    """The experiment's file, the resolved lab of every point, workloads and firmware as they were, versions."""
    folder.mkdir(exist_ok=True)
    (folder / "experiment.yaml").write_text(outcome.document.path.read_text(encoding="utf-8"), encoding="utf-8")
    for measured, tasks in zip(outcome.measured, outcome.tasks, strict=True):
        lab: dict[str, Any] = json.loads(tasks[0].lab)
        text = f"# {measured.point}\n" + yaml.safe_dump(lab, sort_keys=False, width=110)
        (folder / f"lab-{measured.point.number}.yaml").write_text(text, encoding="utf-8")
        for name, source in _sources(tasks[0], lab["firmware"]):
            (folder / name).write_text(source, encoding="utf-8")
    known = {package: _version(package) for package in PACKAGES}
    versions = {"nicemu": nicemu.__version__, "python": platform.python_version(), **known}
    (folder / "versions.yaml").write_text(yaml.safe_dump(versions, sort_keys=False), encoding="utf-8")


def _sources(task: Any, firmware: str) -> Iterator[tuple[str, str]]:
    """File names and texts of the workload and the image of a run."""
    if task.work.kind == "workload" and not task.work.text:
        yield f"workload-{task.work.name}.py", workloads.shipped()[task.work.name].text
    else:
        yield f"{task.work.kind}-{Path(task.work.name).stem}.py", task.work.text
    shipped = find(firmware, "firmware", ".py")
    text = task.firmware or (shipped.read_text(encoding="utf-8") if shipped is not None else "")
    if text:
        yield f"firmware-{Path(firmware).stem}.py", text


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
