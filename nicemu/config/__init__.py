"""The configuration: YAML files, checked, as frozen models.

The names load on first use: pydantic takes a quarter of a second, and `nicemu --help` needs only the error class.
"""

import importlib
from typing import TYPE_CHECKING, Any

from nicemu.config.errors import ConfigError

if TYPE_CHECKING:
    from nicemu.config.config import Config
    from nicemu.config.host_profile import HostProfile
    from nicemu.config.load import load_config
    from nicemu.config.nic_profile import NicProfile

__all__ = ["Config", "ConfigError", "HostProfile", "NicProfile", "load_config"]

_MODULES = {"Config": "config", "HostProfile": "host_profile", "NicProfile": "nic_profile", "load_config": "load"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
