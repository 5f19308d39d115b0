"""The composition root: configuration -> one host, its NICs and their fabric on one timeline."""

from __future__ import annotations

from typing import Any

from nicemu.lab.lab import Lab, load_firmware
from nicemu.nic.firmware import FirmwareError

__all__ = ["FirmwareError", "Lab", "load_firmware", "open"]


def open(config: Any = None) -> Lab:
    """A lab from a checked configuration (``nicemu.config.Config``), the default one if None."""
    if config is None:
        from nicemu.config import load_config

        config = load_config()
    return Lab(config)
