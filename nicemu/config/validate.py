"""From what a YAML file says to a model, or to one ConfigError about the first thing that is wrong."""

import difflib
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from nicemu.config.errors import ConfigError, field_error
from nicemu.config.types import Record
from nicemu.config.yaml_file import FieldPath, YamlFile

Model = TypeVar("Model", bound=Record)

_RULE = re.compile(r"Value error, (?P<field>\w*): expected (?P<expected>.*)", re.DOTALL)
"""How our own validators speak: `subscriber: expected auto or chain`; an empty name means the field itself."""


class Place(NamedTuple):
    """Where an error is: its path in the file; the model around it, and its field there, if it is one's or an item's.

    pydantic's location has the tags of union members as well, which the file does not.
    """

    path: FieldPath
    model: type[BaseModel]
    field: FieldInfo | None


def validate(model: type[Model], file: YamlFile, base: Path | None = None) -> Model:
    """Check `file.values` against `model`. Relative paths in it are relative to `base`."""
    try:
        return model.model_validate(file.values, context={"base": base})
    except ValidationError as error:
        found = [(_place(model, tuple(each["loc"])), each) for each in error.errors()]
        place, first = min(found, key=lambda each: file.line(each[0].path))
        raise _config_error(place, file, first) from None


def _place(model: type[BaseModel], loc: FieldPath) -> Place:
    path: list[str | int] = []
    inside, field, members = model, None, [model]
    for name in loc:
        tagged = [each for each in members if len(members) > 1 and name in _tags(each)]
        if tagged:
            members = tagged
            continue
        path.append(name)
        if isinstance(name, str):
            inside = members[0] if members else inside
            field = inside.model_fields.get(name)
            members = _models_in(field.annotation) if field is not None else []
    return Place(tuple(path), inside, field)


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """What `event` may be in a member of the union of faults."""
    field = model.model_fields.get("event")
    return get_args(field.annotation) if field is not None else ()


def _config_error(place: Place, file: YamlFile, error: ErrorDetails) -> ConfigError:
    path, given = place.path, error["input"]
    rule = _RULE.fullmatch(error["msg"])
    if error["type"] == "extra_forbidden":
        return _unknown_field(place, file)
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path, expected = (*path, "event"), "one of " + ", ".join(_events(place))
        given = given.get("event") if isinstance(given, dict) else given
    elif rule:
        if rule["field"]:
            given = getattr(given, rule["field"], None) if not isinstance(given, dict) else given.get(rule["field"])
            path = (*path, rule["field"])
        expected = rule["expected"]
    else:
        expected = describe(place) or error["msg"]
    name, line = file.where(path)
    return field_error(_dotted(path), expected, given, file=name, line=line)


def _events(place: Place) -> list[str]:
    members = _models_in(place.field.annotation) if place.field is not None else []
    return [tag for member in members for tag in _tags(member)]


def _unknown_field(place: Place, file: YamlFile) -> ConfigError:
    path, known = place.path, sorted(place.model.model_fields)
    close = difflib.get_close_matches(str(path[-1]), known, n=3)
    expected = " or ".join(close) if close else "one of " + ", ".join(known)
    name, line = file.where(path)
    return ConfigError(f"field {_dotted(path)}: expected {expected}, given an unknown field", file=name, line=line)


def _dotted(path: FieldPath) -> str:
    return ".".join(map(str, path)) or "(top)"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models of a field that holds one, perhaps one or null, one of several, or a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (tuple, dict, Union, types.UnionType, Annotated):
        return [model for each in get_args(annotation) for model in _models_in(each)]
    return []


def describe(place: Place) -> str:
    """What a field expects, in words: `int >= 0`, `one of arena, model`, `bool`; empty if there is no such field."""
    if place.field is None or place.field.annotation is None:
        return ""
    return _describe_type(place.field.annotation, place.field.metadata, item=isinstance(place.path[-1], int))


def _describe_type(annotation: Any, metadata: list[Any], item: bool = False) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        rules = [rule for each in arguments[1:] for rule in getattr(each, "metadata", [each])]
        return _describe_type(arguments[0], [*metadata, *rules], item)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        items = _describe_type(arguments[0], [])
        return items if item else f"a list, each {items}"
    if origin in (Union, types.UnionType):
        words = ["null" if each is type(None) else _describe_type(each, metadata) for each in arguments]
        return " or ".join(dict.fromkeys(words))
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "a mapping of fields"
    name = {Path: "a path", str: "a string"}.get(annotation, getattr(annotation, "__name__", str(annotation)))
    low = next((each.ge for each in metadata if hasattr(each, "ge")), None)
    high = next((each.le for each in metadata if hasattr(each, "le")), None)
    if low is not None and high is not None and high < 10**9:
        return f"{name} {low}..{high}"
    return f"{name} >= {low}" if low is not None else name
