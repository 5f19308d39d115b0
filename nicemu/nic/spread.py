"""Costs from a seeded distribution: a factor for all that one fault, or one command, takes.

The distribution is given by five quantiles and lies on straight lines between them. A factor is a function of (seed,
stream, NIC, number of the fault or command) and of nothing else: no draw disturbs another one. All numbers are
integers, so that compiled and plain Python agree.
"""

from typing import Any

from nicemu._jit import entry, jit
from nicemu.fabric.draw import draw
from nicemu.tables.rows import fabric, spread

FAULTS, COMMANDS, HOST_FAULTS, HOST_INVALIDATIONS = range(1 << 22, (1 << 22) + 4)
"""Streams of draws: a page fault's stages in the device; a command on translations; what the host does of a page fault
and of an invalidation."""
ONE = 1 << 16
AT_50, AT_95, AT_99, AT_100 = (percent * (1 << 32) // 100 for percent in (50, 95, 99, 100))


@jit
def between(low, high, done, length):
    """``done`` of ``length`` on the way from ``low`` to ``high``."""
    return low + (high - low) * done // length


@jit
def quantile(s, at):
    """The inverse of the distribution function of SPREAD row ``s``, at ``at`` / 2^32: a factor in 1/65536."""
    if at < AT_50:
        return between(s.p0, s.p50, at, AT_50)
    if at < AT_95:
        return between(s.p50, s.p95, at - AT_50, AT_95 - AT_50)
    if at < AT_99:
        return between(s.p95, s.p99, at - AT_95, AT_99 - AT_95)
    return between(s.p99, s.p100, at - AT_99, AT_100 - AT_99)


@jit
def factor(world, row, stream, number):
    """The factor of event ``number`` of a stream, in 1/65536; ``ONE`` if SPREAD row ``row`` says nothing."""
    s = spread(world, row)
    if s.p50 == 0:
        return ONE
    return quantile(s, draw(fabric(world, 0).seed, stream, row, number))


@jit
def scaled(ns, by):
    """A cost times a factor."""
    return ns * by >> 16


@entry("int64(int64, int64, int64, int64)")
def host_factor(world, row, stream, number):
    """``factor`` for Python."""
    return factor(world, row, stream, number)


def configure(row: Any, profile: Any) -> None:
    """Write a profile's ``spread`` (``config.types.Spread``; None: none) into a SPREAD row."""
    for name in row.dtype.names:
        row[name] = 0 if profile is None else round(getattr(profile, name) * ONE)
