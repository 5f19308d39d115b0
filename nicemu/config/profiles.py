"""Profiles by name or path, with the file and line of whatever is wrong in them."""

from pathlib import Path
from typing import TypeVar

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
    return _load(model, path)


_read: dict[tuple[type[Record], Path, int], Record] = {}
"""Profiles read before, by file and time of its last change."""


def _load(model: type[Profile], path: Path) -> Profile:
    key = (model, path, path.stat().st_mtime_ns)
    profile = _read.get(key)
    if not isinstance(profile, model):
        profile = _read[key] = validate(model, read_yaml(path))
    return profile
