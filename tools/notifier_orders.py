#!/usr/bin/env python
"""Write docs/notifiers.md: the order of notifier, lock, page-table entry, TLB flush and free at each call site and in
each kernel era, as the model runs it.

    tools/notifier_orders.py            write it
    tools/notifier_orders.py --check    say whether it is up to date (status 1 if not)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from notifier_sites import MORE, NOT_MODELLED, RUNS, observe
from notifier_watch import Observed

from nicemu.mm.discipline import SITES, Site

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "notifiers.md"
TEXT = Path(__file__).with_name("notifier_orders.md")
COLUMNS = {"v3.6": "before: v3.6", "v3.7-seed": "seed: 2ec74c3ef2", "v3.7": "6bdb913f0a: v3.7", "v6.12": "v6.12"}
OLD = ("v3.6", "v3.7-seed", "v3.7")

SEED = {
    "xip_unmap": "`invalidate_page` comes after the unlock; i_mmap_mutex is still held",
    "huge_wp_fallback": "the pair is around the lock, not inside; the end also when the entry had changed",
    "huge_wp": "the same; the old page is put under the lock, before the end: the device was told at the start",
    "split_huge": "the same; also when no huge mapping is found",
    "collapse": "the same; the end comes at once, before the copy: mmap_lock, held for write, keeps the hole empty",
    "hugetlb_unmap": "nothing: it was outside",
    "hugetlb_cow": "the pair is around the lock, which is dropped for the end and taken again to release the pages",
    "hugetlb_fork": "nothing: a gap, in v3.7 too",
    "fork": "nothing: it was outside",
    "cow": "**adds** `invalidate_page` after the unlock, and keeps `change_pte` with its fallback: holes 1 and 2",
    "unmap": "nothing: it was outside",
    "zap": "nothing: it was outside",
    "mremap": "nothing: it was outside",
    "mkclean": "`invalidate_page` comes after the unlock, if the entry changed",
    "unmap_one": "`invalidate_page` comes after the unlock; the caller's reference keeps the page",
    "unmap_cluster": "a pair around the lock instead of `invalidate_page` for each entry under it",
}
"""What the seed commit changed at the sites of odp.md 1.3, in its order."""
FILES = {
    "xip_unmap": "filemap_xip.c", "huge_wp_fallback": "huge_memory.c", "huge_wp": "huge_memory.c",
    "split_huge": "huge_memory.c", "collapse": "huge_memory.c", "hugetlb_unmap": "hugetlb.c",
    "hugetlb_cow": "hugetlb.c", "hugetlb_fork": "hugetlb.c", "fork": "memory.c", "cow": "memory.c",
    "unmap": "memory.c", "zap": "memory.c", "mremap": "mremap.c", "mkclean": "rmap.c", "unmap_one": "rmap.c",
    "unmap_cluster": "rmap.c",
}  # fmt: skip
IN_2012 = ("mprotect", "hugetlb_mprotect", "remap_file_pages", "ksm_protect", "ksm_replace", "uprobe", "migrate")
"""Sites of odp.md 1.4 that the seed did not touch."""

seen = cache(observe)


def cell(name: str, era: str) -> str:
    """The order, and the lock under which a sleeping subscriber is reported."""
    if name in SITES and SITES[name].in_era(era) is None:
        return "—"
    if name in NOT_MODELLED:
        return "**not modelled**"
    observed = seen(name, era)
    found = f"`{observed.order()}`" if observed.steps else "nothing"
    return found + "".join(f"<br>sleep under **{lock}**" for _, lock in observed.sleeps)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def what(name: str) -> str:
    """What is run, in words."""
    run = {**RUNS, **MORE}.get(name)
    return (run.__doc__ or "").split("\n")[0].rstrip(".") if run else SITES[name].what.capitalize()


def functions(site: Site) -> str:
    """The kernel function, and that of 6.12 if it has another name."""
    names = [f"`{name}`" for name in dict.fromkeys((site.function, site.function_612)) if name]
    return " / ".join(names)


def rows_of_1_3() -> str:
    """Before, the seed, after, 6.12, side by side."""
    head = ["call site", *COLUMNS.values(), "what the seed changed"]
    rows = ([f"{FILES[name]} {functions(SITES[name])}<br>{what(name)}", *(cell(name, era) for era in COLUMNS), change]
            for name, change in SEED.items())  # fmt: skip
    return table(head, rows)


def rows_of_1_4() -> str:
    """What the seed did not touch."""
    rows = ([f"{functions(SITES[name])}<br>{what(name)}", *(cell(name, era) for era in COLUMNS)] for name in IN_2012)
    return table(["call site", *COLUMNS.values()], rows)


def runs(*names: str) -> str:
    """Some runs under the kernels of 2012."""
    return table(["run", *(COLUMNS[era] for era in OLD)],
                 ([what(name), *(cell(name, era) for era in OLD)] for name in names))  # fmt: skip


def pages(observed: Observed) -> tuple[str, str]:
    """Event and extent of the ranges that an interval notifier got."""
    extents = {0: "everything", 1: "1 page", 512: "2 MiB"}
    events = ", ".join(event for event, _ in observed.heard)
    return events or "none", ", ".join(extents.get(count, f"{count} pages") for _, count in observed.heard) or "-"


def row_of_6_12(name: str, label: str) -> list[str]:
    """One row of 1.5."""
    if name in NOT_MODELLED:
        return [label, f"**not modelled**: {NOT_MODELLED[name]}", "", ""]
    return [f"{label}<br>{what(name)}", *pages(seen(name, "v6.12")), cell(name, "v6.12")]


def rows_of_1_5() -> str:
    """6.12: event, range, order."""
    sites = [row_of_6_12(site.name, f"`{site.function_612}`") for site in SITES.values() if site.v612 is not None]
    return table(["call site", "event", "range", "order"], [*sites, row_of_6_12("release", "`mmu_notifier_release`")])


def document() -> str:
    """The whole text: ``{name}`` of the frame are tables made here."""
    frame = TEXT.read_text(encoding="utf-8")
    return frame.format(
        rows_of_1_3=rows_of_1_3(), rows_of_1_4=rows_of_1_4(), rows_of_1_5=rows_of_1_5(),
        fallback=runs("cow", "cow, change_pte"), zero_page=runs("cow, zero page"), hugetlb_fork=runs("hugetlb_fork"),
        ksm=runs("ksm_protect", "ksm_replace", "uprobe"), nested=runs("hugetlb munmap"),
        untouched=table(["run", *COLUMNS.values()],
                        [[what(name), *(cell(name, era) for era in COLUMNS)] for name in ("mprotect, untouched",)]),
        release=table(["run", *COLUMNS.values()], [[what("release"), *(cell("release", era) for era in COLUMNS)]]),
        aging=table(["run", "the chain", "interval notifiers"],
                    ([what(name), cell(name, "v6.12"), pages(seen(name, "v6.12"))[0]]
                     for name in ("page_referenced", "page_idle", "damon"))),
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """Write, or check."""
    text = document()
    if "--check" in arguments:
        current = DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == text
        print(f"{DOCUMENT.name} is {'up to date' if current else 'out of date: run tools/notifier_orders.py'}")
        return 0 if current else 1
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
