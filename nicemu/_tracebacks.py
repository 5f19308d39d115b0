"""Tracebacks of errors that a program is meant to see end where it calls into this package, as calls into C do."""

from pathlib import Path
from types import TracebackType

PACKAGE = Path(__file__).resolve().parent
MEANT_FOR_PROGRAMS = {"nicemu.pyverbs.pyverbs_error", "nicemu.timeline.loop", "nicemu.config.errors"}
"""Modules of their classes."""


def is_meant_for_programs(error: BaseException) -> bool:
    """It says all there is to say: a refused call, a wait that cannot end, Ctrl-C. Anything else may be our bug."""
    modules = {each.__module__ for each in type(error).__mro__}
    return isinstance(error, KeyboardInterrupt) or not modules.isdisjoint(MEANT_FOR_PROGRAMS)


def end_in_the_program(trace: TracebackType | None) -> None:
    """Cut off a traceback that begins in the program at its first call into this package."""
    while trace is not None and trace.tb_next is not None:
        if PACKAGE in Path(trace.tb_next.tb_frame.f_code.co_filename).parents:
            trace.tb_next = None
        trace = trace.tb_next
