"""Where each deliberate bug shows: the scenario and the era that ``nicemu check --mutants`` hunts it in."""

from nicemu.check.hunt import Target
from nicemu.check.scenarios import ALL
from nicemu.config.mutants import MUTANTS

WHERE: dict[str, tuple[str, str]] = {
    "zap_without_flush": ("dontneed", "v6.12"),
    "zap_without_drain": ("in-flight", "v6.12"),
    "skip_device_wait": ("dontneed", "v6.12"),
    "ignore_fork_protect": ("fork", "v6.12"),
    "last_page_forgotten": ("dontneed", "v6.12"),
    "seq_not_set": ("cold-dontneed", "v6.12"),
    "seq_set_if_mapped": ("cold-dontneed", "v6.12"),
    "non_blockable_sleeps": ("oom-reaper", "v6.12"),
    "allocates_in_callback": ("dontneed", "v6.12"),
    "ranges_toggle": ("two-ranges", "v3.7"),
    "drop_mutex_before_mtt_write": ("cold-dontneed", "v6.12"),
    "retry_not_checked": ("cold-dontneed", "v6.12"),
    "retry_check_before_mutex": ("cold-dontneed", "v6.12"),
    "fault_under_mutex": ("cold-dontneed", "v6.12"),
    "no_resume_on_error": ("error", "v6.12"),
    "eq_not_armed": ("many-faults", "v6.12"),
    "read_begin_does_not_wait": ("cold-dontneed", "v6.12"),
    "end_of_one_is_end_of_all": ("two-ranges", "v6.12"),
    "insert_not_deferred": ("register", "v6.12"),
    "free_before_start": ("dontneed", "v6.12"),
    "free_before_invalidate_page": ("reclaim", "v3.7"),
    "swap_write_before_unmap": ("reclaim", "v6.12"),
    "copy_before_unmap": ("migrate", "v6.12"),
    "install_without_recheck": ("cpu-and-device", "v6.12"),
    "cow_without_recheck": ("cow", "v6.12"),
    "reaper_ignores_refusal": ("oom-reaper", "v6.12"),
    "young_as_invalidate": ("aging", "v6.12"),
    "cow_not_notified": ("cow-read", "v6.12"),
    "reclaim_not_notified": ("reclaim", "v6.12"),
    "mremap_not_notified": ("mremap", "v6.12"),
    "mprotect_not_notified": ("mprotect", "v6.12"),
    "fork_not_notified": ("fork", "v6.12"),
    "migrate_not_notified": ("migrate", "v6.12"),
    "zap_not_notified": ("dontneed", "v6.12"),
    "cow_under_lock": ("cow", "v6.12"),
    "collapse_not_notified": ("collapse", "v6.12"),
    "huge_wp_not_notified": ("huge-wp", "v3.7"),
    "mkclean_not_notified": ("writeback", "v6.12"),
    "ksm_not_notified": ("ksm-replace", "v6.12"),
    "reclaim_under_lock": ("reclaim", "v6.12"),
}


def target_of(name: str) -> Target:
    """What to hunt a mutant in.

    :raises ValueError: it is unknown.
    """
    if name not in MUTANTS:
        raise ValueError(f"mutant {name!r} is unknown: one of {', '.join(MUTANTS)}")
    scenario, era = WHERE[name]
    return Target(ALL[scenario], era, (name,))
