"""From what a YAML file says to a model, or to one ConfigError about the first thing that is wrong."""

import difflib
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from nicemu.config.errors import ConfigError, field_error
from nicemu.config.types import Record
from nicemu.config.yaml_file import FieldPath, YamlFile

Model = TypeVar("Model", bound=Record)

_RULE = re.compile(r"Value error, (?P<field>\w*): expected (?P<expected>.*)", re.DOTALL)
"""How our own validators speak: `subscriber: expected auto or chain`; an empty name means the field itself."""


def validate(model: type[Model], file: YamlFile, base: Path | None = None) -> Model:
    """Check `file.values` against `model`. Relative paths in it are relative to `base`."""
    try:
        return model.model_validate(file.values, context={"base": base})
    except ValidationError as error:
        first = min(error.errors(), key=lambda each: file.line(_field_path(each)))
        raise _config_error(model, file, first) from None


def _field_path(error: ErrorDetails) -> FieldPath:
    return tuple(error["loc"])


def _config_error(model: type[BaseModel], file: YamlFile, error: ErrorDetails) -> ConfigError:
    path, given = _field_path(error), error["input"]
    if error["type"] == "extra_forbidden":
        return _unknown_field(model, file, path)
    rule = _RULE.fullmatch(error["msg"])
    if rule:
        if rule["field"]:
            given = getattr(given, rule["field"], None) if not isinstance(given, dict) else given.get(rule["field"])
            path = (*path, rule["field"])
        expected = rule["expected"]
    else:
        expected = describe(model, path) or error["msg"]
    name, line = file.where(path)
    return field_error(_dotted(path), expected, given, file=name, line=line)


def _unknown_field(model: type[BaseModel], file: YamlFile, path: FieldPath) -> ConfigError:
    known = _fields_of(model, path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=3)
    expected = " or ".join(close) if close else "one of " + ", ".join(known)
    name, line = file.where(path)
    return ConfigError(f"field {_dotted(path)}: expected {expected}, given an unknown field", file=name, line=line)


def _dotted(path: FieldPath) -> str:
    return ".".join(map(str, path)) or "(top)"


def _fields_of(model: type[BaseModel], path: FieldPath) -> list[str]:
    keyed = False  # the next name is a key that the user chose, of a mapping of models
    for name in path:
        if isinstance(name, int) or keyed:  # an item: the model is the item's
            keyed = False
            continue
        annotation = model.model_fields[name].annotation
        nested = _model_in(annotation)
        if nested is None:
            return []
        model, keyed = nested, get_origin(annotation) is dict
    return sorted(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that holds one, perhaps one or null, or a list or mapping of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, dict, Union, types.UnionType, Annotated):
        return next((found for each in get_args(annotation) if (found := _model_in(each))), None)
    return None


def describe(model: type[BaseModel], path: FieldPath) -> str:
    """What a field expects, in words: `int >= 0`, `one of arena, model`, `bool`; empty if there is no such field."""
    field: FieldInfo | None = None
    keyed = False
    for name in path:
        if isinstance(name, int) or keyed:  # an item: what the items expect, or its own field that follows
            keyed = False
            continue
        field = model.model_fields.get(name)
        if field is None:
            return ""
        model, keyed = _model_in(field.annotation) or model, get_origin(field.annotation) is dict
    if field is None or field.annotation is None:
        return ""
    return _describe_type(field.annotation, field.metadata, item=isinstance(path[-1], int))


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
        return " or ".join("null" if each is type(None) else _describe_type(each, metadata) for each in arguments)
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "a mapping of fields"
    name = {Path: "a path", str: "a string"}.get(annotation, getattr(annotation, "__name__", str(annotation)))
    low = next((each.ge for each in metadata if hasattr(each, "ge")), None)
    high = next((each.le for each in metadata if hasattr(each, "le")), None)
    if low is not None and high is not None and high < 10**9:
        return f"{name} {low}..{high}"
    return f"{name} >= {low}" if low is not None else name
