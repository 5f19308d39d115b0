"""Firmware images: Python files with functions named after hooks, checked and compiled on load and put into a NIC's
hook vector.

An image is a trusted file (see ``docs/firmware.md``). A function is a hook by its name: the lower-case name of a
:class:`nicemu.nic.hooks.Hook`. Hooks that an image lacks are the default image's.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nicemu import _jit
from nicemu._jit import object_code
from nicemu.nic import image_rules
from nicemu.nic.hooks import Hook
from nicemu.nic.image_source import Refusal, Source

HOOKS = {hook.name.lower(): hook for hook in Hook}


class FirmwareError(Exception):
    """A firmware image cannot be used; one line naming file, line, hook, expected and given."""


@dataclass(frozen=True)
class Image:
    """A loaded image: hooks of its own, the cache folder of their code, and the image that has the others."""

    path: Path
    doc: str
    functions: dict[Hook, Callable]
    folder: str
    default: Image | None = None

    @property
    def name(self) -> str:
        """The file's name without suffix."""
        return self.path.stem

    @property
    def own(self) -> frozenset[Hook]:
        """Hooks that are not the default image's."""
        return frozenset(self.functions) if self.default else frozenset()

    def owner(self, hook: Hook) -> Image:
        """The image whose hook it is: this one or the default."""
        if hook in self.functions:
            return self
        assert self.default is not None, "the default image has every hook"
        return self.default

    def address(self, hook: Hook) -> int:
        """Code address of a hook (without JIT: its index).

        :raises FirmwareError: it does not compile.
        """
        owner = self.owner(hook)
        try:
            return _jit.install(owner.functions[hook], owner.folder)
        except Exception as error:
            line, reason = _compiler_says(error, owner.path)
            where = f"{owner.path}:{line or owner.line(hook)}"
            raise FirmwareError(f"{where}: hook {hook.name.lower()}: does not compile: {reason}") from error

    def line(self, hook: Hook) -> int:
        """The line of a hook of its own."""
        return self.functions[hook].__code__.co_firstlineno

    def compile(self) -> None:
        """Have the code of every hook."""
        for hook in Hook:
            self.address(hook)


def code_text(image: Image) -> str:
    """Where the code of an image came from in this process: ``3 hooks compiled in 0.41 s, 28 from default``."""
    work, count = object_code.work[image.folder], len(image.functions)
    how = f"compiled in {work.seconds:.2f} s" if work.compiled else "from the cache" if _jit.JIT else "in plain Python"
    inherited = image.default is not None and count < len(Hook)
    others = f", {len(Hook) - count} from {image.default.name}" if inherited else ""
    return f"{count} {'hooks' if count > 1 else 'hook'} {how}{others}"


def _compiler_says(error: Exception, path: Path) -> tuple[int, str]:
    """Line in the image (0: not said) and reason of a message of numba's."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = re.findall(rf'File "[^"\n]*{re.escape(path.name)}", line (\d+)', text)
    said = [line.strip() for line in text.splitlines() if line.strip()]
    skip = ("Failed in ", "During:", "File ", "<source", "def ", "^", "This error may", "For more")
    reasons = [line for line in said if not line.startswith(skip)] or [type(error).__name__]
    return int(lines[-1]) if lines else 0, reasons[0].partition(", defined at")[0]


_loaded: dict[tuple[Path, str, Path | None], Image] = {}


def load(path: Path, default: Image | None = None) -> Image:
    """Load an image file, once per process and content; what it lacks comes from ``default``.

    :raises FirmwareError: it cannot be read, or says what an image may not.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise FirmwareError(f"{path}: expected a firmware image, given: {error.strerror}") from error
    digest = hashlib.sha256(source).hexdigest()[:16]
    key = path, digest, default.path if default else None
    if key not in _loaded:
        _loaded[key] = _load(path, source, digest, default)
    return _loaded[key]


def _load(path: Path, text: bytes, digest: str, default: Image | None) -> Image:
    try:
        source = Source(ast.parse(text, str(path)), HOOKS)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise FirmwareError(f"{path}:{line}: expected a firmware image, given: {_named(error)}") from error
    _refuse(path, list(image_rules.text_refusals(source)))
    values = _run(path, source.tree, f"nicemu_firmware_{digest}")
    _refuse(path, list(image_rules.value_refusals(source, values)))
    functions = {hook: values[name] for name, hook in HOOKS.items() if name in source.functions}
    if not functions:
        raise FirmwareError(f"{path}:1: expected a function named after a hook (nicemu firmware hooks), given none")
    return Image(path, (values["__doc__"] or "").strip(), functions, f"firmware-{digest}", default)


def _run(path: Path, tree: ast.Module, name: str) -> dict:
    """The names of the image's module, once it has run."""
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where numba looks for the globals of cached code
    try:
        exec(compile(tree, str(path), "exec"), module.__dict__)
    except Exception as error:
        trace, line = error.__traceback__, 1
        while trace is not None:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == str(path) else line
            trace = trace.tb_next
        raise FirmwareError(f"{path}:{line}: expected a firmware image, given: {_named(error)}") from error
    return module.__dict__


def _named(error: Exception) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    if isinstance(error, ImportError):
        text = text.partition(" (")[0]  # without where our package lies
    return f"{type(error).__name__}: {' '.join(text.split())}"


def _refuse(path: Path, refusals: list[Refusal]) -> None:
    if refusals:
        line, what, expected, given = min(refusals)
        raise FirmwareError(f"{path}:{line}: {what}: expected {expected}, given {given}")
