"""Deliberate ordering bugs, by name: what each does wrong. All are off unless a configuration names them.

`layer` says whose code asks for it: the mm (`Host.broken`), the driver (`Driver.broken`), the NIC, or nobody's:
`sites` are changes of the table of call sites (`nicemu.mm.discipline`), which `nicemu.lab.plant` makes.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One deliberate bug."""

    layer: str
    what: str


MUTANTS: dict[str, Mutant] = {
    # the device
    "zap_without_flush": Mutant("nic", "ZAP_MTT leaves the IOTLB as it is"),
    "zap_without_drain": Mutant("nic", "ZAP_MTT completes before DMA in flight has drained"),
    # the driver: invalidations
    "skip_device_wait": Mutant("driver", "an invalidation does not wait for the device's completion"),
    "ignore_fork_protect": Mutant("driver", "fork's write protection does not invalidate"),
    "last_page_forgotten": Mutant("driver", "an invalidation leaves the last page of its range"),
    "seq_not_set": Mutant("driver", "an invalidation does not set its sequence"),
    "seq_set_if_mapped": Mutant("driver", "an invalidation sets its sequence only where the device has pages"),
    "non_blockable_sleeps": Mutant("driver", "an invalidation that may not block waits for the device"),
    "allocates_in_callback": Mutant("driver", "an invalidation allocates memory that may need reclaim"),
    "ranges_toggle": Mutant("driver", "3.x: the end of one range ends all ranges in progress"),
    # the driver: faults
    "drop_mutex_before_mtt_write": Mutant("driver", "umem_mutex is dropped between retry check and MTT write"),
    "retry_not_checked": Mutant("driver", "a fault does not ask whether an invalidation came in between"),
    "retry_check_before_mutex": Mutant("driver", "a fault asks so before it has umem_mutex"),
    "fault_under_mutex": Mutant("driver", "a fault holds umem_mutex while it faults pages in"),
    "no_resume_on_error": Mutant("driver", "a fault that cannot be resolved is not resumed"),
    "eq_not_armed": Mutant("driver", "the page-fault EQ is not armed again after an interrupt"),
    # the notifiers
    "read_begin_does_not_wait": Mutant("mm", "a fault begins while an invalidation of its interval runs"),
    "end_of_one_is_end_of_all": Mutant("mm", "the sequence is even again while another range is in progress"),
    "insert_not_deferred": Mutant("mm", "an interval inserted during an invalidation does not look colliding"),
    # the mm
    "free_before_start": Mutant("mm", "munmap and zap free pages before range_start"),
    "free_before_invalidate_page": Mutant("mm", "3.7: a page is freed before invalidate_page has returned"),
    "swap_write_before_unmap": Mutant("mm", "reclaim writes a page to swap before it is unmapped"),
    "copy_before_unmap": Mutant("mm", "migration copies a page before it is unmapped"),
    "install_without_recheck": Mutant("mm", "a fault enters its page without a look whether another one did"),
    "cow_without_recheck": Mutant("mm", "a COW break replaces an entry that has changed meanwhile"),
    "reaper_ignores_refusal": Mutant("mm", "the OOM reaper frees pages whose device refused to let go"),
    "young_as_invalidate": Mutant("mm", "a young bit is asked for by an invalidation"),
    # the table of call sites
    "cow_not_notified": Mutant("sites", "do_wp_page does not notify"),
    "reclaim_not_notified": Mutant("sites", "try_to_unmap_one does not notify"),
    "mremap_not_notified": Mutant("sites", "move_page_tables does not notify"),
    "mprotect_not_notified": Mutant("sites", "mprotect does not notify"),
    "fork_not_notified": Mutant("sites", "copy_page_range does not notify"),
    "migrate_not_notified": Mutant("sites", "try_to_migrate_one does not notify"),
    "zap_not_notified": Mutant("sites", "zap_page_range_single does not notify"),
    "cow_under_lock": Mutant("sites", "do_wp_page notifies under the page-table lock"),
    "collapse_not_notified": Mutant("sites", "collapse_huge_page does not notify"),
    "huge_wp_not_notified": Mutant("sites", "3.x: do_huge_pmd_wp_page does not notify"),
    "mkclean_not_notified": Mutant("sites", "page_mkclean_one does not notify"),
    "ksm_not_notified": Mutant("sites", "KSM's replace_page does not notify"),
    "reclaim_under_lock": Mutant("sites", "try_to_unmap_one notifies under the page-table lock"),
}


def of_layer(layer: str, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``chosen`` that are the layer's.

    :raises ValueError: one is unknown.
    """
    for name in chosen:
        if name not in MUTANTS:
            raise ValueError(f"mutant {name!r} is unknown: one of {', '.join(MUTANTS)}")
    return tuple(name for name in chosen if MUTANTS[name].layer == layer)
