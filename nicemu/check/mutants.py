"""Where each deliberate bug shows: the scenario and the era that ``nicemu check --mutants`` hunts it in."""

from nicemu.check.hunt import Target
from nicemu.check.scenarios import ALL
from nicemu.config.mutants import MUTANTS

WHERE: dict[str, tuple[str, str]] = {
    "skip_device_wait": ("dontneed", "v6.12"),
    "ignore_fork_protect": ("fork", "v6.12"),
    "drop_mutex_before_mtt_write": ("cold-dontneed", "v6.12"),
    "zap_without_flush": ("dontneed", "v6.12"),
    "zap_without_drain": ("in-flight", "v6.12"),
}


def target_of(name: str) -> Target:
    """What to hunt a mutant in.

    :raises ValueError: it is unknown.
    """
    if name not in MUTANTS:
        raise ValueError(f"mutant {name!r} is unknown: one of {', '.join(MUTANTS)}")
    scenario, era = WHERE[name]
    return Target(ALL[scenario], era, (name,))
