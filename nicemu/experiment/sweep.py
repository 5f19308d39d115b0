"""From an experiment's axes to its points: every combination, each with its settings and a checked lab."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nicemu.config.config import Config
from nicemu.config.errors import ConfigError, field_error
from nicemu.config.host_profile import HostProfile
from nicemu.config.load import find_lab
from nicemu.config.nic_profile import NicProfile
from nicemu.config.profiles import load_profile
from nicemu.config.validate import validate
from nicemu.config.yaml_file import YamlFile, read_yaml
from nicemu.experiment.schema import Experiment, Scalar

PROFILES: dict[str, Any] = {"nic": NicProfile, "host": HostProfile}
ROOTS = ("lab", "workload")
REPETITION = "repetition"


class Axis(NamedTuple):
    """One thing that varies. ``name``: the last word of its key."""

    key: str
    name: str
    labels: tuple[Scalar, ...]
    values: tuple[Any, ...]


class Point(NamedTuple):
    """One combination: what it is called and what it sets."""

    number: int
    labels: dict[str, Scalar]
    settings: dict[str, Any]

    def __str__(self) -> str:
        return " ".join(f"{name}={label}" for name, label in self.labels.items()) or "the only point"

    def lies(self, where: Mapping[str, Scalar]) -> bool:
        """Its axes have these values, as numbers or as text."""
        return all(name in self.labels and same(self.labels[name], value) for name, value in where.items())


def same(label: Scalar, value: Scalar) -> bool:
    """Equal, or written the same (`--only pages=1`)."""
    return label == value or str(label) == str(value)


class Document(NamedTuple):
    """An experiment, and the file that it stands in."""

    experiment: Experiment
    file: YamlFile
    path: Path

    def wrong(self, field: str, expected: str, given: object) -> ConfigError:
        """The error about a field of the file."""
        place = tuple(int(word) if word.isdigit() else word for word in field.split("."))
        return field_error(field, expected, given, file=self.file.name, line=self.file.line(place))


def axes(document: Document) -> list[Axis]:
    """All axes: those of the product first. Raises ConfigError."""
    sweep = document.experiment.sweep
    found = [_axis(document, "sweep", key, values) for key, values in sweep.product.items()]
    found += [_axis(document, "sweep.zip", key, values) for key, values in sweep.zip.items()]
    for axis in found:
        if sum(other.name == axis.name for other in found) > 1 or axis.name == REPETITION:
            raise document.wrong("sweep", "axes whose keys end in different words", axis.key)
    return found


def _axis(document: Document, section: str, key: str, values: list[Any]) -> Axis:
    words = key.split(".")
    if key != "firmware" and (words[0] not in ROOTS or len(words) < 2):
        expected = "firmware, or a key that begins with lab. or workload."
        raise document.wrong(section, expected, key)
    labels: list[Scalar] = []
    for value in values:
        label = value.get("label") if isinstance(value, dict) and set(value) == {"label", "value"} else value
        if not isinstance(label, Scalar):
            raise document.wrong(f"{section}.{key}", "scalars, or {label: ..., value: ...}", value)
        labels.append(label)
    plain = [value["value"] if isinstance(value, dict) else value for value in values]
    return Axis(key, words[-1], tuple(labels), tuple(plain))


def points(document: Document) -> list[Point]:
    """Every point, in the order of the file: the last axis of the product varies fastest, the zipped ones within."""
    found = axes(document)
    free = len(document.experiment.sweep.product)
    choices: list[Iterable[Any]] = [[((axis, i),) for i in range(len(axis.values))] for axis in found[:free]]
    together = found[free:]
    if together:
        choices.append([tuple((axis, i) for axis in together) for i in range(len(together[0].values))])
    return [_point(number, itertools.chain(*chosen)) for number, chosen in enumerate(itertools.product(*choices))]


def _point(number: int, chosen: Iterable[tuple[Axis, int]]) -> Point:
    picks = list(chosen)
    return Point(number, {axis.name: axis.labels[i] for axis, i in picks},
                 {axis.key: axis.values[i] for axis, i in picks})  # fmt: skip


def settings(document: Document, point: Point, more: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
    """The checked lab of a point and the fields of its workload; ``more`` settings come last. Raises ConfigError."""
    experiment = document.experiment
    tree = {"lab": copy.deepcopy(_lab(document)), "workload": experiment.workload.model_dump()}
    if experiment.firmware:
        tree["lab"]["firmware"] = experiment.firmware
    changes = dict(point.settings)
    for each in experiment.adjust:
        changes |= each.settings if point.lies(each.where) else {}
    changes |= more
    for key in sorted(changes, key=lambda key: key.count(".")):
        _set(document, tree, ["lab", "firmware"] if key == "firmware" else key.split("."), changes[key])
    lines = {path[1:]: line for path, line in document.file.lines.items() if path[0] == "lab"}
    try:
        config = validate(Config, YamlFile(document.file.name, tree["lab"], lines), document.path.parent)
    except ConfigError as error:
        where = f" at {point}" if point.labels else ""
        raise ConfigError(str(error).replace("field ", "field lab.", 1) + where) from None
    return config, tree["workload"]


def _lab(document: Document) -> dict[str, Any]:
    """The fields of the lab; of a named one all that its file sets, profiles spelled out."""
    lab = document.experiment.lab
    fields = {"like": lab} if isinstance(lab, str) else dict(lab)
    like = fields.pop("like", None)
    if like is None:
        return fields
    if not isinstance(like, str):
        raise document.wrong("lab.like", "the name of a shipped lab or a path", like)
    file = find_lab(like, document.path.parent)
    base = validate(Config, read_yaml(file), file.parent)
    return {name: value for name, value in base.to_dict().items() if name in base.model_fields_set} | fields


def _set(document: Document, tree: dict[str, Any], words: list[str], value: Any) -> None:
    """Set a field; a profile by name on the way is spelled out."""
    here: Any = tree
    for i, word in enumerate(words[:-1]):
        index = _index(here, word)
        if index is None:
            here = here.setdefault(word, {}) if isinstance(here, dict) else None
        else:
            if isinstance(here[index], str) and words[:i] == ["lab"] and word in PROFILES:
                here[index] = _spelled_out(document, word, here[index])
            here = here[index]
        if not isinstance(here, dict | list):
            raise document.wrong("sweep", "the key of a field", ".".join(words))
    index = _index(here, words[-1])
    if index is None and not isinstance(here, dict):
        raise document.wrong("sweep", "the key of a field", ".".join(words))
    here[words[-1] if index is None else index] = value


def _spelled_out(document: Document, kind: str, name: str) -> dict[str, Any]:
    """A profile by name as its fields."""
    try:
        fields: dict[str, Any] = load_profile(PROFILES[kind], kind, name, document.path.parent).to_dict()
    except ValueError as error:
        raise document.wrong(f"lab.{kind}", str(error).removeprefix(": expected "), name) from None
    return fields


def _index(here: Any, word: str) -> Any:
    """The key of a part that is there; None: it is not."""
    if isinstance(here, list):
        return int(word) if word.isdigit() and int(word) < len(here) else None
    return word if isinstance(here, dict) and word in here else None


def chosen(document: Document, all_points: list[Point], only: Mapping[str, str]) -> Iterator[Point]:
    """The points that ``--only`` leaves. Raises ConfigError if it names no axis or leaves none."""
    known = {axis.name: axis for axis in axes(document)}
    for name, value in only.items():
        if name not in known:
            names = ", ".join(known) or "none: nothing varies"
            raise ConfigError(f"command line: field --only: expected an axis ({names}), given {name!r}")
        if not any(same(label, value) for label in known[name].labels):
            labels = ", ".join(dict.fromkeys(map(str, known[name].labels)))
            raise ConfigError(f"command line: field --only: expected {name} one of {labels}, given {value!r}")
    found = [point for point in all_points if point.lies(only)]
    if not found:
        raise ConfigError(f"command line: field --only: expected values that some point has, given {dict(only)}")
    yield from found
