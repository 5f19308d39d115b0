"""What an experiment leaves: tables, pictures, the page, results, the shown run, and the exact inputs."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator
from pathlib import Path

import yaml

import nicemu
from nicemu import workloads
from nicemu.config.paths import find
from nicemu.experiment import page, parquet, plots, summary
from nicemu.experiment.conduct import Outcome, Wish
from nicemu.experiment.task import Task

UNFIXED = ("seed", "trace", "pcap")
"""Fields of a lab that differ from run to run."""
PACKAGES = ("numpy", "numba", "pyarrow", "matplotlib")


def write(outcome: Outcome, wish: Wish) -> None:
    """All of it, into ``wish.folder``. Raises ConfigError: a package is missing."""
    folder = wish.folder
    parquet.write(folder, outcome.document, outcome.measured, outcome.tasks)
    _write_inputs(outcome, folder / "inputs")
    if outcome.shown is not None:
        for name, data in outcome.shown[1].files:
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
    """The experiment's file, every resolved lab, workloads and firmware as they were, versions."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "experiment.yaml").write_text(outcome.document.path.read_text(encoding="utf-8"), encoding="utf-8")
    for number, (lab, points) in enumerate(_labs(outcome).items()):
        text = "".join(f"# {point}\n" for point in points) + yaml.safe_dump(json.loads(lab), sort_keys=False, width=110)
        (folder / f"lab-{number}.yaml").write_text(text, encoding="utf-8")
    for task in (tasks[0] for tasks in outcome.tasks):
        for name, source in _sources(task):
            (folder / name).write_text(source, encoding="utf-8")
    known = {package: _version(package) for package in PACKAGES}
    versions = {"nicemu": nicemu.__version__, "python": platform.python_version(), **known}
    (folder / "versions.yaml").write_text(yaml.safe_dump(versions, sort_keys=False), encoding="utf-8")


def _labs(outcome: Outcome) -> dict[str, list[str]]:
    """The resolved labs, each with the points that have it. Seeds are the runs' own (``runs.parquet``)."""
    labs: dict[str, list[str]] = {}
    for measured, tasks in zip(outcome.measured, outcome.tasks, strict=True):
        fields = {name: value for name, value in json.loads(tasks[0].lab).items() if name not in UNFIXED}
        labs.setdefault(json.dumps(fields), []).append(str(measured.point))
    return labs


def _sources(task: Task) -> Iterator[tuple[str, str]]:
    """File names and texts of the workload and the images of a run."""
    if task.work.kind == "workload" and not task.work.text:
        yield f"workload-{task.work.name}.py", workloads.shipped()[task.work.name].text
    else:
        yield f"{task.work.kind}-{Path(task.work.name).stem}.py", task.work.text
    own = dict(task.images)
    for image in json.loads(task.lab)["firmware"]:
        shipped = find(image, "firmware", ".py") if image not in own else None
        text = own.get(image) or (shipped.read_text(encoding="utf-8") if shipped is not None else "")
        if text:
            yield f"firmware-{Path(image).stem}.py", text


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
