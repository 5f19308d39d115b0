"""DMA sanitizer: judges every DMA at the instant its bytes move.

A violation if an invalidation of the page has returned since its translation was made, if the frame was freed since,
or if a write goes through a translation older than the page's write protection. Rows of VIOLATION keep both
histories: when and at which mm stamp the translation was made, and which mm operation took the page.
"""

from nicemu._jit import jit
from nicemu.abi.command import MTT_STAMP_SHIFT
from nicemu.tables.records import ViolationKind
from nicemu.tables.rows import control, frame, mkey, violation
from nicemu.tables.trace import Ev, trace

INVALIDATED, FREED, WRITE_PROTECTED = (int(kind) for kind in ViolationKind)
VIOLATION = int(Ev.VIOLATION)
MAX_VIOLATIONS = 1024


@jit
def judge(world, s, write):
    """The violation of moving segment ``s`` now, 0 if none."""
    f = frame(world, s.frame)
    made = s.entry >> MTT_STAMP_SHIFT
    if f.generation != s.generation:
        return FREED
    if made < f.invalidated:
        return INVALIDATED
    if write and made < f.protected:
        return WRITE_PROTECTED
    return 0


@jit
def check(world, nic, s, write):
    """Record a violation of segment ``s``, if it is one."""
    c = control(world, 0)
    if c.sanitizer == 0:
        return
    kind = judge(world, s, write)
    if kind == 0:
        return
    f = frame(world, s.frame)
    c.violations += 1
    number = mkey(world, s.mkey).number
    trace(world, VIOLATION, nic, kind, number, s.page, s.frame)
    row = violation(world, min(c.violations, MAX_VIOLATIONS) - 1)
    row.kind = kind
    row.time = c.now
    row.nic = nic
    row.mkey = number
    row.page = s.page
    row.frame = s.frame
    row.write = write
    row.translated_at = s.time
    row.made_stamp = s.entry >> MTT_STAMP_SHIFT
    row.taken_stamp = max(f.invalidated, f.protected)
    row.operation = f.operation
