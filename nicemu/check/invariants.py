"""What must hold in every run, whatever the schedule. Each look at a run gives :class:`Violation` rows.

Kinds: ``dma`` (the sanitizer: DMA through a translation after its invalidation returned), ``freed`` (a page was freed
while a device still had a translation of it), ``stale`` (a secondary MMU has one at the end), ``lost`` (a fault or a
completion that never came), ``deadlock``, ``lock`` (a report of lockdep), ``memory`` (contents that no sequential order
gives), ``count`` (reference counts), ``livelock``, ``crash``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nicemu.abi.command import MTT_FRAME_BITS, MTT_FRAME_SHIFT, MkeyFlag
from nicemu.lab.violations import violation_lines
from nicemu.mm.lock_report import Kind

if TYPE_CHECKING:
    from nicemu.check.testbed import Testbed


class Violation(NamedTuple):
    """One thing that must not be."""

    kind: str
    text: str


class FreedWatch:
    """Looks, whenever frames are freed, whether the device still has a translation of one."""

    def __init__(self, bed: Testbed) -> None:
        self._bed, self.found = bed, list[Violation]()
        frames: Any = bed.lab.frames
        free, free_many = frames.free, frames.free_many

        def watched(frame: int) -> None:
            self._look(np.array([frame]))
            free(frame)

        def watched_many(many: np.ndarray) -> None:
            self._look(np.asarray(many))
            free_many(many)

        frames.free, frames.free_many = watched, watched_many

    def _look(self, frames: np.ndarray) -> None:
        held = np.intersect1d(frames, device_frames(self._bed.lab))
        for frame in held.tolist():
            thread = self._bed.lab.scheduler.current
            by = f"{thread.name} in {' > '.join(thread.context)}" if thread is not None else "nobody"
            self.found.append(Violation("freed", f"frame {frame} freed by {by}: the device has a translation of it"))


def device_frames(lab: Any) -> np.ndarray:
    """Frames that on-demand mkeys of any device translate to: in their MTTs and in the IOTLBs."""
    world, mask = lab.world, (1 << MTT_FRAME_BITS) - 1
    found = [np.empty(0, np.int64)]
    for device in lab.devices:
        base = int(device.row.mkey_base)
        for region in device_regions(lab, device):
            row = world.mkey.view(np.ndarray)[base + region]
            if row["valid"] and row["flags"] & MkeyFlag.ODP and row["root"]:
                found.append(_leaves(world, int(row["root"]), int(row["levels"])))
        lines = world.iotlb[int(device.row.iotlb_base) :][: int(device.row.iotlb_sets * device.row.iotlb_ways)]
        lines = lines.view(np.ndarray)
        odp = [base + region for region in device_regions(lab, device)]
        found.append(lines["entry"][(lines["mkey"] != 0) & np.isin(lines["mkey"], odp)])
    entries = np.concatenate(found)
    frames: np.ndarray = entries[entries != 0] >> MTT_FRAME_SHIFT & mask
    return frames


def device_regions(lab: Any, device: Any) -> list[int]:
    """Indices of the mkeys that page faults can hit."""
    return list(lab.driver.devices[device.index].odp_mkeys)


def _leaves(world: Any, node: int, levels: int) -> np.ndarray:
    entries = world.nodes[node]
    entries = entries[entries != 0]
    if levels == 1:
        return np.array(entries)
    below = [_leaves(world, int(child), levels - 1) for child in entries]
    return np.concatenate(below) if below else np.empty(0, np.int64)


def sanitizer(bed: Testbed) -> list[Violation]:
    """The DMA sanitizer's findings."""
    return [Violation("dma", text) for text in violation_lines(bed.lab, 3)]


def locks(bed: Testbed, tolerant: bool) -> list[Violation]:
    """Reports of lockdep; ``tolerant``: sleeps in atomic context are what the era does."""
    reports = [report for report in bed.host.reports if not (tolerant and report.kind == Kind.ATOMIC_SLEEP)]
    return [Violation("lock", str(report)) for report in reports]


def counts(bed: Testbed) -> list[Violation]:
    """Every mapped page's map count is the number of entries that map it, and its references are at least as many.
    Pages that leaked are not looked for."""
    mapped: Counter[int] = Counter()
    for process in bed.spaces.values():
        if process is not None:
            mapped.update(process.mm.frames_in(0, 1 << 48).tolist())
    pages = bed.host.pages
    found = []
    for frame, count in sorted(mapped.items()):
        if pages.mapcount[frame] != count or pages.refcount[frame] < count + pages.pins[frame]:
            found.append(Violation("count", f"frame {frame}: mapped {count} times, map count {pages.mapcount[frame]}, "
                                            f"reference count {pages.refcount[frame]}"))  # fmt: skip
    return found[:3]


def stale(bed: Testbed) -> list[Violation]:
    """Translations of the other subscribers that are stale."""
    return [Violation("stale", str(each)) for mirror in bed.subscribers for each in mirror.check(settled=True)]
