"""One run as data: all that it depends on, by value, so that a digest names it and another machine can do it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nicemu
from nicemu import workloads
from nicemu.config import load_config
from nicemu.config.errors import ConfigError
from nicemu.config.paths import shipped
from nicemu.experiment.schema import Experiment
from nicemu.experiment.sweep import Document, Point, settings
from nicemu.observe.run_folder import CAPTURE, COUNTERS, TRACE

QUICK_ITERATIONS = 20
SHOWN = TRACE, CAPTURE, COUNTERS
"""What is kept of a shown run."""


class Work(NamedTuple):
    """What a run executes: a workload of the package or of a file, or a script; ``text``: the file's contents."""

    kind: str  # "workload" or "script"
    name: str
    text: str
    values: tuple[tuple[str, Any], ...]  # parameters; of a script: its arguments, numbered


class Task(NamedTuple):
    """One run. ``lab``: the resolved configuration; ``images``: the texts of firmware that is not shipped, each by the
    name that the lab has for it."""

    point: int
    repetition: int
    seed: int
    lab: str
    work: Work
    images: tuple[tuple[str, str], ...]
    nicemu: str
    """Digest of the nicemu that planned it: a worker with another one refuses."""
    shown: bool = False
    """Trace, capture and counters are wanted."""

    @property
    def digest(self) -> str:
        """Names the run by its inputs, nicemu's own sources among them; its place in the sweep is none of them."""
        inputs = [self.seed, self.lab, self.work, self.images, self.nicemu, self.shown]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


class Result(NamedTuple):
    """What a run left: columns of its observations, all of one length; ``error``: why it has none."""

    columns: dict[str, list[Any]]
    counters: dict[str, int]
    virtual_ns: int
    error: str = ""
    files: Mapping[str, bytes] = {}
    """Of a shown run: trace, capture and counters by name. Results travel between processes: all can be pickled."""


@cache
def sources() -> str:
    """A digest of this nicemu: its version, its sources, and the firmware and profiles that it ships."""
    digest = hashlib.sha256(nicemu.__version__.encode())
    package = Path(nicemu.__file__).parent
    for folder, pattern in ((package, "*.py"), (shipped("firmware"), "*.py"), (shipped("configs"), "*.yaml")):
        for file in sorted(folder.rglob(pattern)):
            if not file.is_relative_to(package / "experiment"):  # what becomes of results does not change them
                digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def seed_of(seed: int, point: Point, repetition: int) -> int:
    """The seed of a run: drawn from the experiment's, from what the point is called and the repetition's number, so
    that other points of a sweep do not change it."""
    text = json.dumps([seed, sorted((name, str(label)) for name, label in point.labels.items()), repetition])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def tasks(document: Document, points: list[Point], seed: int, quick: bool) -> Iterator[Task]:
    """The runs of these points, in order. Raises ConfigError."""
    more = _quick(document.experiment) if quick else {}
    for point in points:
        for repetition in range(1 if quick else document.experiment.repeat):
            yield task(document, point, repetition, seed, more)


def shown(document: Document, points: list[Point], seed: int, quick: bool) -> tuple[Point, Task] | None:
    """The run whose trace and capture are kept. Raises ConfigError."""
    show = document.experiment.show
    if show is None:
        return None
    there = [point for point in points if point.lies(show.where)]
    if not there:
        return None
    more = (_quick(document.experiment) if quick else {}) | show.settings
    return there[0], task(document, there[0], 0, seed, more)._replace(shown=True)


def _quick(experiment: Experiment) -> dict[str, Any]:
    return experiment.quick or {"workload.iterations": QUICK_ITERATIONS}


def task(document: Document, point: Point, repetition: int, seed: int, more: Mapping[str, Any]) -> Task:
    """One run. Raises ConfigError."""
    config, fields = settings(document, point, more)
    drawn = seed_of(seed, point, repetition)
    lab = config.to_dict() | {"seed": drawn, "trace": None, "pcap": None}
    paths = [Path(name) for name in config.firmware if "/" in name]
    if paths:
        _check_images(config.firmware, config.nics)
    images = {str(path): f"{number}-{path.name}" for number, path in enumerate(dict.fromkeys(paths))}
    lab["firmware"] = [images.get(name, name) for name in config.firmware]
    texts = tuple((name, Path(path).read_text(encoding="utf-8")) for path, name in images.items())
    lab_text = json.dumps(lab, sort_keys=True)
    return Task(point.number, repetition, drawn, lab_text, _work(document, fields), texts, sources())


@cache
def _check_images(firmware: tuple[str, ...], nics: int) -> None:
    """Firmware that is not shipped loads and compiles. Raises ConfigError: it does not."""
    from nicemu import lab

    try:
        lab.load_firmware(load_config(None, {"firmware": list(firmware), "nics": nics}))
    except lab.FirmwareError as error:
        raise ConfigError(str(error)) from None


def _work(document: Document, fields: dict[str, Any]) -> Work:
    values = {name: value for name, value in fields.items() if name not in ("name", "file", "script", "arguments")}
    if fields["script"]:
        text = _text(document, "workload.script", fields["script"])
        return Work("script", fields["script"], text, tuple(enumerate(map(str, fields["arguments"]))))  # type: ignore[arg-type]
    text = _text(document, "workload.file", fields["file"]) if fields["file"] else ""
    try:
        known = workloads.of_text(text, fields["file"]) if text else workloads.shipped()
    except Exception as error:
        raise document.wrong("workload.file", f"a Python file with workloads ({error})", fields["file"]) from None
    if fields["name"] not in known:
        names = ", ".join(known) or "none"
        raise document.wrong("workload.name", f"a workload ({names})", fields["name"])
    workload = known[fields["name"]]
    quick = {} if "iterations" in workload.parameters else {"iterations"}
    for name, value in values.items():
        if name not in quick:
            _check(document, workload, name, value)
    return Work("workload", workload.name, text, tuple(sorted((n, v) for n, v in values.items() if n not in quick)))


def _check(document: Document, workload: workloads.Workload, name: str, value: Any) -> None:
    if name not in workload.parameters:
        names = ", ".join(workload.parameters)
        raise document.wrong(f"workload.{name}", f"a parameter of {workload.name} ({names})", name)
    default = workload.parameters[name]
    fits = isinstance(value, type(default)) or (isinstance(default, float) and isinstance(value, int))
    if isinstance(default, bool) is not isinstance(value, bool) or not fits:
        raise document.wrong(f"workload.{name}", type(default).__name__, value)


def _text(document: Document, field: str, name: str) -> str:
    try:
        return (document.path.parent / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise document.wrong(field, f"a Python file that can be read ({reason})", name) from None


def missing(package: str, extra: str) -> ConfigError:
    """What to say when an optional package is not there."""
    return ConfigError(f"expected the package {package}, which is not installed: pip install 'nicemu[{extra}]'")
