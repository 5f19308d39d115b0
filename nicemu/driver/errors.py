"""How a driver call fails."""

from __future__ import annotations


class DriverError(OSError):
    """``errno`` as the kernel gives it; ``strerror`` says which rule was broken. Nothing was changed."""
