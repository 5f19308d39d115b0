"""Firmware images: Python files with functions marked as hooks, compiled on load and put into a NIC's hook vector.

An image is a trusted file (see ``docs/firmware.md``). A function is a hook by its name: the lower-case name of a
:class:`nicemu.nic.hooks.Hook`. Hooks that an image lacks come from the default image.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nicemu import _jit
from nicemu.nic.hooks import Hook


class FirmwareError(Exception):
    """A firmware image cannot be used; one line naming file, hook, expected and given."""


@dataclass(frozen=True)
class Image:
    """A loaded image: its hooks and the cache folder of its code."""

    path: Path
    summary: str
    functions: dict[Hook, Callable]
    folder: str
    own: frozenset[Hook] = frozenset()
    """Hooks that are not the default image's."""

    def address(self, hook: Hook) -> int:
        """Code address of a hook (without JIT: its index)."""
        try:
            return _jit.install(self.functions[hook], self.folder)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise FirmwareError(f"{self.path}: hook {hook.name.lower()}: does not compile: {reason}") from error


_loaded: dict[tuple[Path, str, Path | None], Image] = {}


def load(path: Path, default: Image | None = None) -> Image:
    """Load an image file, once per process and content; what it lacks comes from ``default``."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise FirmwareError(f"{path}: expected a firmware image, given: {error.strerror}") from error
    digest = hashlib.sha256(source).hexdigest()[:16]
    key = path, digest, default.path if default else None
    if key not in _loaded:
        _loaded[key] = _load(path, source, digest, default)
    return _loaded[key]


def _load(path: Path, source: bytes, digest: str, default: Image | None) -> Image:
    module = types.ModuleType(f"nicemu_firmware_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where numba looks for the globals of cached code
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:
        raise FirmwareError(f"{path}: expected a firmware image, given: {type(error).__name__}: {error}") from error
    functions = dict(default.functions) if default else {}
    for hook in Hook:
        function = getattr(module, hook.name.lower(), None)
        if function is None:
            continue
        if not inspect.isfunction(function) or len(inspect.signature(function).parameters) != 3:
            what = f"{path}: hook {hook.name.lower()}"
            raise FirmwareError(f"{what}: expected a function (world, row, arg), given {function!r}")
        functions[hook] = function
    missing = [hook.name.lower() for hook in Hook if hook not in functions]
    if missing:
        raise FirmwareError(f"{path}: expected hooks {', '.join(missing)}, given none")
    own = frozenset(hook for hook in Hook if default and functions[hook] is not default.functions[hook])
    return Image(path, (module.__doc__ or "").strip().split("\n")[0], functions, f"firmware-{digest}", own)
