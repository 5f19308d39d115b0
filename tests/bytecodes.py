"""Work as a number that no clock and no other process changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def bytecodes(call: Callable[[], Any]) -> int:
    """How many bytecodes of Python a call runs (compiled code and numpy count as one call each)."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
