"""YAML files with the line of every field, for error messages."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nicemu.config.errors import ConfigError

FieldPath = tuple[str | int, ...]

COMMAND_LINE = "command line"


@dataclass
class YamlFile:
    """The contents of one file and where each field stands in it."""

    name: str  # as the user gave it
    values: dict[str, Any]
    lines: dict[FieldPath, int] = field(default_factory=dict)
    overridden: frozenset[str] = frozenset()  # top-level fields whose values came from the command line

    def where(self, path: FieldPath) -> tuple[str, int]:
        """The file and line to name in a message about the field; line 0 if it is not in a file."""
        if path and path[0] in self.overridden:
            return COMMAND_LINE, 0
        return self.name, self.line(path)

    def line(self, path: FieldPath) -> int:
        """The line of the field, or of the nearest field around it; 1 if there is none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(path: Path) -> YamlFile:
    """Read one mapping from `path`. Raises ConfigError for a missing file, bad YAML, or a field given twice."""
    name = _display(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"expected a readable YAML file: {reason}", file=name) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = dict(_field_lines(root, (), name)) if root is not None else {}
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"expected YAML: {error.problem or error.context}", file=name, line=line) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"expected YAML: {error}", file=name) from None
    if root is None:
        return YamlFile(name, {})
    if not isinstance(values, dict):
        raise ConfigError(f"expected a mapping of fields, given {values!r:.60}", file=name, line=1)
    return YamlFile(name, values, lines)


_NAMES = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def _text(node: yaml.Node) -> str:
    return repr(node.value) if isinstance(node, yaml.ScalarNode) else f"a {node.id}"


def _field_lines(node: yaml.Node, path: FieldPath, name: str) -> Iterator[tuple[FieldPath, int]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _NAMES:
                raise ConfigError(f"expected the name of a field, given {_text(key)}", file=name, line=line)
            if key.value in seen:
                field_name = ".".join(map(str, (*path, key.value)))
                raise ConfigError(f"field {field_name}: expected once, given twice", file=name, line=line)
            seen.add(key.value)
            yield (*path, key.value), line
            yield from _field_lines(value, (*path, key.value), name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _field_lines(value, (*path, index), name)


def _display(path: Path) -> str:
    """The path relative to the working directory if it lies below, else as it is."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
