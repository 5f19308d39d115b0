"""Deliberate bugs of the table of call sites: a discipline with some of its data wrong."""

from __future__ import annotations

from dataclasses import replace

from nicemu.mm.discipline import RANGE_LOCKED, SILENT, Discipline, Notify

SITES: dict[str, tuple[str, Notify]] = {
    "cow_not_notified": ("cow", SILENT),
    "reclaim_not_notified": ("unmap_one", SILENT),
    "mremap_not_notified": ("mremap", SILENT),
    "mprotect_not_notified": ("mprotect", SILENT),
    "fork_not_notified": ("fork", SILENT),
    "migrate_not_notified": ("migrate", SILENT),
    "zap_not_notified": ("zap", replace(SILENT, flush_last=True)),
    "collapse_not_notified": ("collapse", SILENT),
    "huge_wp_not_notified": ("huge_wp", SILENT),
    "mkclean_not_notified": ("mkclean", SILENT),
    "ksm_not_notified": ("ksm_replace", SILENT),
    "cow_under_lock": ("cow", RANGE_LOCKED),
    "reclaim_under_lock": ("unmap_one", RANGE_LOCKED),
}


def planted(discipline: Discipline, mutants: tuple[str, ...]) -> Discipline:
    """The discipline with these bugs in its sites."""
    changed = dict([SITES[name] for name in mutants])
    return replace(discipline, sites=discipline.sites | changed) if changed else discipline
