"""Run a Python program in this process as `python SCRIPT` or `python -m MODULE` would."""

import builtins
import importlib.util
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.abc import InspectLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from nicemu._tracebacks import end_in_the_program, is_meant_for_programs
from nicemu.config.errors import ConfigError

INTERRUPTED = 130
"""Exit status of a program that Ctrl-C ended, as shells have it."""


@dataclass(frozen=True)
class Program:
    """A program and how Python describes it to itself."""

    compile: Callable[[], CodeType]  # may raise the program's SyntaxError
    file: str
    name: str  # what becomes sys.argv[0]
    search: str  # what becomes sys.path[0]
    spec: Any = None


def load_script(script: str) -> Program:
    """The program in a file. Raises ConfigError if there is none; a syntax error is the program's own."""
    path = Path(script)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"expected a Python program, given {script!r}: {error.strerror}") from None
    file = str(path.absolute())
    return Program(lambda: compile(source, file, "exec", dont_inherit=True), file, script, str(path.resolve().parent))


def load_module(name: str) -> Program:
    """The program that `python -m NAME` would run. Raises ConfigError if there is none."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except (ModuleNotFoundError, ValueError):
        spec = None
    finally:
        sys.path.remove(here)
    loader = spec.loader if spec else None
    if spec is None or not spec.origin or not isinstance(loader, InspectLoader):
        raise ConfigError(f"expected a Python module that can be run, given {name!r}")
    return Program(lambda: _code_of(loader, spec.name), spec.origin, spec.origin, here, spec)


def _code_of(loader: InspectLoader, name: str) -> CodeType:
    code = loader.get_code(name)
    if code is None:
        raise ConfigError(f"expected a module written in Python, given {name!r}")
    return code


def run_program(program: Program, arguments: list[str]) -> int:
    """Run it as `__main__` until it and its threads end; return its exit status.

    An exception that it does not catch prints its traceback, as from plain Python, without frames of ours.
    """
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=program.file, __builtins__=builtins, __spec__=program.spec, __cached__=None, __loader__=None
    )
    if program.spec is not None:
        main.__package__ = program.spec.parent
    sys.modules["__main__"] = main
    sys.argv[:] = [program.name, *arguments]
    sys.path[:1] = [program.search]
    status = _status_of(program, main)
    _join_threads()
    return status


def _status_of(program: Program, main: ModuleType) -> int:
    try:
        exec(program.compile(), main.__dict__)
    except ConfigError:
        raise
    except SystemExit as leaving:
        return _exit_status(leaving.code)
    except BaseException as error:
        _report(error)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _report(error: BaseException) -> None:
    """Show the exception through the program's own hook, from its first frame on, to its last one if that is enough."""
    error.__traceback__ = _without_our_frame(error.__traceback__)
    if is_meant_for_programs(error):
        end_in_the_program(error.__traceback__)
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except Exception:
        traceback.print_exception(error)


def _without_our_frame(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _join_threads() -> None:
    """Wait for the program's threads, as Python does before it exits."""
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread() and thread is not threading.current_thread():
            thread.join()
