"""DMA sanitizer: judges every DMA at the instant its bytes move.

A violation if an invalidation of the page has returned since its translation was made, if the frame was freed since,
or if a write goes through a translation older than the page's write protection. At level 2 it also looks the page up
in the mkey's table: another frame there means that a line of the IOTLB was wrong. Rows of VIOLATION keep both
histories: when and at which mm stamp the translation was made, and which mm operation took the page.
"""

from nicemu._jit import cold, jit
from nicemu.abi.command import MTT_FRAME_BITS, MTT_FRAME_SHIFT, MTT_STAMP_SHIFT
from nicemu.tables import radix
from nicemu.tables.records import ViolationKind
from nicemu.tables.rows import control, frame, frame_stamp, mkey, violation
from nicemu.tables.trace import Ev, trace

INVALIDATED, FREED, WRITE_PROTECTED, MISTRANSLATED = (int(kind) for kind in ViolationKind)
FRAME_BITS = (1 << MTT_FRAME_BITS) - 1 << MTT_FRAME_SHIFT
COMPARES = 2
"""Level of CONTROL.sanitizer that an injected fault of the IOTLB asks for."""
VIOLATION = int(Ev.VIOLATION)
MAX_VIOLATIONS = 1024


@jit
def mistranslated(world, s):
    """The table leads elsewhere. Nothing there is no contradiction: a ZAP_MTT that drains clears it first."""
    m = mkey(world, s.mkey)
    found = radix.find(world, m.root, m.levels, s.page)
    return found != 0 and (found ^ s.entry) & FRAME_BITS != 0


@jit
def judge(world, s, write):
    """The violation of moving segment ``s`` now, 0 if none."""
    stamps = frame_stamp(world, s.frame)
    made = s.entry >> MTT_STAMP_SHIFT
    if frame(world, s.frame).generation != s.generation:
        return FREED
    if made < stamps.invalidated:
        return INVALIDATED
    if write and made < stamps.protected:
        return WRITE_PROTECTED
    if control(world, 0).sanitizer == COMPARES and mistranslated(world, s):
        return MISTRANSLATED
    return 0


@jit
def check(world, nic, s, write):
    """Record a violation of segment ``s``, if it is one."""
    if control(world, 0).sanitizer != 0:
        kind = judge(world, s, write)
        if kind != 0:
            report(world, nic, s, write, kind)


@cold
def report(world, nic, s, write, kind):
    """A row of VIOLATION."""
    c = control(world, 0)
    stamps = frame_stamp(world, s.frame)
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
    row.taken_stamp = max(stamps.invalidated, stamps.protected)
    row.operation = stamps.operation
