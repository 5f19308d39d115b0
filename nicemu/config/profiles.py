"""Profiles by name or path, with the file and line of whatever is wrong in them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from nicemu.config import paths
from nicemu.config.types import Record
from nicemu.config.validate import validate
from nicemu.config.yaml_file import read_yaml

Profile = TypeVar("Profile", bound=Record)


def load_profile(model: type[Profile], kind: str, name: str, base: Path | None = None) -> Profile:
    """The profile `name` of `configs/<kind>`, or of the YAML file `name` relative to `base`.

    Raises ConfigError for a wrong file, ValueError if there is no such profile.
    """
    path = paths.find(name, f"configs/{kind}", ".yaml", base)
    if path is None:
        known = ", ".join(paths.shipped_names(f"configs/{kind}", ".yaml"))
        raise ValueError(f": expected a profile ({known}) or a YAML file that exists")
    return _load(model, kind, path)


def unlike(model: type[Profile], kind: str, values: dict[str, Any], base: Path | None) -> dict[str, Any]:
    """With `like: NAME` among the fields: what they do not say is as in that profile."""
    if not isinstance(values.get("like"), str):
        return values
    other = load_profile(model, kind, values["like"], base).to_dict()
    return _over(other, {name: given for name, given in values.items() if name != "like"})


def _over(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is given, over what `base` has, in groups of fields too."""
    groups = {name: _over(base[name], value) for name, value in given.items()
              if isinstance(value, dict) and isinstance(base.get(name), dict)}  # fmt: skip
    return base | given | groups


_read: dict[tuple[type[Record], Path, int], Record] = {}
"""Profiles read before, by file and time of its last change."""
_reading: list[Path] = []
"""Profiles being read: each is like the one behind it."""


def _load(model: type[Profile], kind: str, path: Path) -> Profile:
    key = (model, path, path.stat().st_mtime_ns)
    profile = _read.get(key)
    if not isinstance(profile, model):
        if path in _reading:
            raise ValueError(f": expected a profile that is not like itself ({path.name})")
        _reading.append(path)
        try:
            file = read_yaml(path)
            profile = _read[key] = validate(model, replace(file, values=unlike(model, kind, file.values, path.parent)))
        finally:
            _reading.remove(path)
    return profile
