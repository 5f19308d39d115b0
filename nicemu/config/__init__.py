"""The configuration: YAML files, checked, as frozen models."""

from nicemu.config.config import Config
from nicemu.config.errors import ConfigError
from nicemu.config.host_profile import HostProfile
from nicemu.config.load import load_config
from nicemu.config.nic_profile import NicProfile

__all__ = ["Config", "ConfigError", "HostProfile", "NicProfile", "load_config"]
