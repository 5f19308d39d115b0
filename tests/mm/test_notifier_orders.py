"""The order at every call site and in every era, as odp.md 1.3-1.5 has it; docs/notifiers.md shows the same runs."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nicemu.mm.discipline import ERAS, SITES

ROOT = Path(__file__).resolve().parents[2]
ORDERS = ROOT / "tools" / "notifier_orders.py"
OLD = ERAS[:4]
PTL, RCU = "page_table_lock", "rcu_read_lock"

NOT_MODELLED = {"hugetlb_unshare", "collapse_pte_mapped", "retract"}

GATHER = "start · [ clear ] · end · flush · free"
PROTECT_612 = "start · [ protect ] · end · flush"
REPLACE = (
    "[ clear flush change_pte page set ] · free",
    "[ clear flush change_pte page set ] · free",
    "start · [ clear flush change_pte set ] · end · free",
    "start · [ clear flush set ] · end · free",
)
SITE_ORDERS: dict[str, tuple[str | None, str | None, str | None, str | None]] = {
    # v3.6 | seed | v3.7 | v6.12; odp.md 1.3
    "xip_unmap": ("[ clear flush page ]", "[ clear flush ] · page", "[ clear flush ] · page", None),
    "huge_wp_fallback": ("[ start clear flush end set ] · free", *["start · [ clear flush set ] · end · free"] * 2,
                         "start · [ clear flush set ] · end"),
    "huge_wp": ("[ start clear flush end set free ]", *["start · [ clear flush set free ] · end"] * 2, None),
    "split_huge": ("[ start mark flush end ] · [ clear flush set ]",
                   *["start · [ mark flush ] · end · [ clear flush set ]"] * 2, "start · [ clear flush set ] · end"),
    "collapse": ("[ start clear flush end ] · free · [ set ]", *["start · [ clear flush ] · end · free · [ set ]"] * 3),
    "hugetlb_unmap": ("start · [ clear ] · end · flush",) * 4,
    "hugetlb_cow": ("[ start clear flush set end ] · [ free ]", *["start · [ clear flush set ] · end · [ free ]"] * 3),
    "hugetlb_fork": (*["[ protect ] · flush"] * 3, PROTECT_612),
    "fork": (PROTECT_612,) * 4,
    "cow": (REPLACE[0], "[ clear flush change_pte page set ] · page · free", *REPLACE[2:]),
    "unmap": (GATHER,) * 4,
    "zap": (GATHER,) * 4,
    "mremap": ("start · [ move ] · flush · end",) * 4,
    "mkclean": ("[ clear flush page set ]", *["[ clear flush set ] · page"] * 2, "start · [ clear flush set ] · end"),
    "unmap_one": ("[ clear flush page ] · free", *["[ clear flush ] · page · free"] * 2,
                  "start · [ clear flush ] · end · free"),
    "unmap_cluster": ("[ clear flush page clear flush page ] · free",
                      *["start · [ clear flush clear flush ] · end · free"] * 2, None),
    # odp.md 1.4
    "mprotect": (*["start · [ protect ] · flush · end"] * 3, PROTECT_612),
    "remap_file_pages": (*["start · [ clear flush ] · end"] * 3, None),
    "ksm_protect": tuple(order.removesuffix(" · free") for order in REPLACE),
    "ksm_replace": REPLACE,
    "uprobe": REPLACE,
    "migrate": ("[ clear flush page ] · [ set ] · free", *["[ clear flush ] · page · [ set ] · free"] * 2,
                "start · [ clear flush ] · end · [ set ] · free"),
    "hugetlb_mprotect": ("start · [ protect ] · flush · end",) * 4,
    # odp.md 1.5
    "hugetlb_mremap": (None, None, None, "start · [ move ] · flush · end"),
    **dict.fromkeys(("madvise_free", "numa_hint", "uffd_wp", "clear_refs"), (None, None, None, PROTECT_612)),
    **dict.fromkeys(("uffd_move", "uffd_move_huge"), (None, None, None, "start · [ clear flush move ] · end")),
    **dict.fromkeys(("wp_clean", "pagemap_scan"), (None, None, None, "start · [ protect ] · flush · end")),
    "device_private": (None, None, None, "start · [ clear flush ] · end · [ set ] · free"),
    "device_exclusive": (None, None, None, "start · [ clear flush set ] · end"),
    "oom_reap": (None, None, None, GATHER),
}  # fmt: skip

UNDER_PTL = {
    "v3.6": {"xip_unmap", "huge_wp_fallback", "huge_wp", "split_huge", "collapse", "hugetlb_cow", "cow", "mkclean",
             "unmap_one", "unmap_cluster", "ksm_protect", "ksm_replace", "uprobe", "migrate"},
    "v3.7-seed": {"cow", "ksm_protect", "ksm_replace", "uprobe"},
    "v3.7": set(), "v6.12": set(),
}  # fmt: skip
"""Where a subscriber is called under the page-table lock."""

HEARD = {
    "huge_wp_fallback": ("CLEAR", 512), "split_huge": ("CLEAR", 512), "collapse": ("CLEAR", 512),
    "hugetlb_unmap": ("CLEAR", 512), "hugetlb_cow": ("CLEAR", 512), "hugetlb_fork": ("CLEAR", 512),
    "fork": ("PROTECTION_PAGE", 1), "cow": ("CLEAR", 1), "unmap": ("UNMAP", 1), "zap": ("CLEAR", 1),
    "mremap": ("UNMAP", 1), "mkclean": ("PROTECTION_PAGE", 1), "unmap_one": ("CLEAR", 1),
    "mprotect": ("PROTECTION_VMA", 1), "ksm_protect": ("CLEAR", 1), "ksm_replace": ("CLEAR", 1),
    "uprobe": ("CLEAR", 1), "migrate": ("CLEAR", 1), "hugetlb_mprotect": ("PROTECTION_VMA", 512),
    "hugetlb_mremap": ("CLEAR", 512), "madvise_free": ("CLEAR", 1), "numa_hint": ("PROTECTION_VMA", 1),
    "uffd_wp": ("PROTECTION_VMA", 1), "uffd_move": ("CLEAR", 1), "uffd_move_huge": ("CLEAR", 512),
    "wp_clean": ("PROTECTION_PAGE", 1), "device_private": ("MIGRATE", 1), "device_exclusive": ("EXCLUSIVE", 1),
    "oom_reap": ("UNMAP", 1), "clear_refs": ("SOFT_DIRTY", 0), "pagemap_scan": ("PROTECTION_VMA", 1),
}  # fmt: skip
"""Event and pages (0: the whole address space) of the one range of odp.md 1.5."""

EVERY = [(site, era) for site, orders in SITE_ORDERS.items() for era in ERAS
         if orders[max(ERAS.index(era) - 1, 0)] is not None]  # fmt: skip
Observe = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def sites() -> Iterator[Any]:
    """``tools/notifier_sites.py``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ORDERS.parent)
        yield importlib.import_module("notifier_sites")


@pytest.fixture(scope="module")
def observe(sites: Any) -> Any:
    """Its runs, each made once."""
    return functools.cache(sites.observe)


def era_like(era: str) -> str:
    """v3.6+srcu calls at the places of v3.6."""
    return era.removesuffix("+srcu")


def test_every_call_site_is_here(sites: Any) -> None:
    assert set(sites.RUNS) == set(SITE_ORDERS) and set(sites.NOT_MODELLED) == NOT_MODELLED
    assert set(SITE_ORDERS) | NOT_MODELLED == set(SITES) and not set(SITE_ORDERS) & NOT_MODELLED
    assert {(site.name, era) for site in SITES.values() for era in ERAS
            if site.name not in NOT_MODELLED and site.in_era(era) is not None} == set(EVERY)  # fmt: skip


@pytest.mark.parametrize(("site", "era"), EVERY)
def test_order(observe: Observe, site: str, era: str) -> None:
    seen = observe(site, era)
    assert seen.order() == SITE_ORDERS[site][max(ERAS.index(era) - 1, 0)]
    assert site in seen.sites and not seen.warnings


@pytest.mark.parametrize(("site", "era"), EVERY)
def test_a_sleep_is_reported_exactly_where_the_era_forbids_it(observe: Observe, site: str, era: str) -> None:
    expected = []
    if site in UNDER_PTL[era_like(era)]:
        expected = [("sleeper", PTL)]
    elif era == "v3.6" and site != "hugetlb_fork":
        expected = [("sleeper", RCU)]
    assert observe(site, era).sleeps == expected


@pytest.mark.parametrize(("site", "era"), EVERY)
def test_nothing_is_freed_before_the_device_was_told(observe: Observe, site: str, era: str) -> None:
    words = [step.word for step in observe(site, era).steps]
    frees, told = ([at for at, word in enumerate(words) if word == wanted] for wanted in ("free", "told"))
    assert not frees or (told and min(frees) > max(told))


@pytest.mark.parametrize(("site", "era"), EVERY)
def test_a_range_has_started_before_an_entry_changes_and_ends_after_that(observe: Observe, site: str, era: str) -> None:
    words = [step.word for step in observe(site, era).steps if step.word not in ("lock", "unlock")]
    if "start" not in words:
        assert "end" not in words
        return
    changes = [at for at, word in enumerate(words) if word in ("clear", "protect", "move", "mark")]
    assert words[:2] == ["start", "told"] and words.count("start") == words.count("end") == 1
    assert min(changes) > 1 and (site == "split_huge" or max(changes) < words.index("end"))


@pytest.mark.parametrize(("site", "era"), EVERY)
def test_an_entry_changes_under_the_lock_only(observe: Observe, site: str, era: str) -> None:
    changed = [step for step in observe(site, era).steps if step.word in ("clear", "protect", "move", "mark", "set")]
    assert changed and all(step.locked for step in changed)


@pytest.mark.parametrize(("site", "era"), [pair for pair in EVERY if pair[1] in ("v3.7", "v6.12")])
def test_since_v3_7_no_callback_that_may_sleep_runs_under_the_lock(observe: Observe, site: str, era: str) -> None:
    assert not {"start", "end", "page", "told"} & set(observe(site, era).under_lock())


@pytest.mark.parametrize("site", [site for site, era in EVERY if era == "v6.12"])
def test_event_and_range(observe: Observe, site: str) -> None:
    assert observe(site, "v6.12").heard == [HEARD[site]]


# The holes of the seed ------------------------------------------------------------------------------------------------


def test_seed_fallback_is_for_a_subscriber_without_change_pte(observe: Observe) -> None:
    seen = observe("cow, change_pte", "v3.7-seed")
    assert seen.order() == "[ clear flush change_pte set ] · page · free" and not seen.sleeps


@pytest.mark.parametrize(
    ("era", "order", "sleeps"),
    [
        ("v3.6", "[ clear flush change_pte page set ]", [("sleeper", PTL)]),
        ("v3.7-seed", "[ clear flush change_pte page set ]", [("sleeper", PTL)]),
        ("v3.7", "start · [ clear flush change_pte set ] · end", []),
        ("v6.12", "start · [ clear flush set ] · end", []),
    ],
)
def test_a_copy_of_the_zero_page_gets_no_call_after_the_unlock_until_v3_7(
    observe: Observe, era: str, order: str, sleeps: list[tuple[str, str]]
) -> None:
    seen = observe("cow, zero page", era)
    assert (seen.order(), seen.sleeps) == (order, sleeps)


# Other states ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
def test_munmap_of_hugetlb_memory_has_two_nested_pairs_in_3x(observe: Observe, era: str) -> None:
    nested = "start · start · [ clear ] · end · end · flush · free"
    assert observe("hugetlb munmap", era).order() == (GATHER if era == "v6.12" else nested)


@pytest.mark.parametrize("era", ERAS)
def test_mprotect_of_untouched_memory_notifies_nobody_in_6_12(observe: Observe, era: str) -> None:
    assert observe("mprotect, untouched", era).order() == ("" if era == "v6.12" else "start · end")


@pytest.mark.parametrize("era", ERAS)
def test_exit_releases_before_it_unmaps(observe: Observe, era: str) -> None:
    seen = observe("release", era)
    assert seen.order() == f"release · {GATHER}"
    assert seen.heard == ([("RELEASE", 0), ("UNMAP", 0)] if era == "v6.12" else [])
    assert seen.sleeps == ([("sleeper", RCU)] if era == "v3.6" else [])


def test_the_oom_reaper_gives_up_where_a_subscriber_would_sleep(observe: Observe) -> None:
    seen = observe("oom_reap, refused", "v6.12")
    assert seen.order() == "start" and not seen.sleeps


@pytest.mark.parametrize(
    ("look", "callback"),
    [("page_referenced", "clear_flush_young"), ("page_idle", "clear_young"), ("damon", "test_young")],
)
def test_aging_asks_the_chain_under_the_lock_and_never_an_interval(observe: Observe, look: str, callback: str) -> None:
    seen = observe(look, "v6.12")
    assert seen.order() == f"[ {callback} ]" and not seen.heard and not seen.sleeps


def test_the_document_is_up_to_date() -> None:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, str(ORDERS), "--check"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path, "NUMBA_DISABLE_JIT": "1"})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
