"""`load_config`: a YAML file, a shipped lab or nothing, with what the command line says on top."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nicemu.config import paths
from nicemu.config.config import Config
from nicemu.config.errors import ConfigError
from nicemu.config.validate import validate
from nicemu.config.yaml_file import COMMAND_LINE, YamlFile, read_yaml

FORCE_ODP = {"force_odp": True, "firmware": ("backup_ring",)}
"""What test suites that do not send again need to run on demand: hardware drops what comes to an absent page of an
unconnected receive, and this image keeps it."""


def load_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration in `path` (a YAML file, or the name of one in `configs/lab`), else the defaults.

    `overrides` replaces top-level fields; None in it means not given. Paths in the file are relative to it, paths in
    `overrides` to the working directory. Raises ConfigError with one line about the first thing that is wrong.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    overridden = frozenset(given)
    if path is None:
        return validate(Config, YamlFile(COMMAND_LINE, given, overridden=overridden))
    file = find_lab(str(path))
    read = read_yaml(file)
    config = validate(Config, read, base=file.parent)
    if not given:
        return config
    kept = {name: getattr(config, name) for name in config.model_fields_set if name not in given}
    return validate(Config, YamlFile(read.name, {**kept, **given}, read.lines, overridden))


def find_lab(name: str, base: Path | None = None) -> Path:
    """The file of a lab: a shipped name, or a path relative to `base`. Raises ConfigError."""
    found = paths.find(name, "configs/lab", ".yaml", base)
    if found is None and Path(name).is_file():
        found = Path(name)
    if found is None:
        known = ", ".join(paths.shipped_names("configs/lab", ".yaml"))
        raise ConfigError(f"expected a YAML file that exists or a shipped lab ({known}), given {name!r}")
    return found
