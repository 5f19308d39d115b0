"""The OOM killer (``oom_kill.c``): reclaim found nothing, so an address space goes.

Victims are address spaces. A forked child of the model dies as SIGKILL kills it: a thread of its own runs its exit, and
in 6.12 the reaper takes what it can should the exit hang. The program itself is a real process: if it is the victim,
what asked for memory fails with ENOMEM, and with ``oom_kills_program`` it is dead to us from then on: each later call
on its memory fails, and the reaper (6.12) takes its model memory.

Left out: ``panic_on_oom``, ``oom_kill_allocating_task``, killing whole groups, a reserve for victims, sysrq.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from nicemu.mm import oom_reap
from nicemu.mm.oom_report import Memory, Ram, Report, describe, headline
from nicemu.mm.page import Fault
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host
    from nicemu.mm.memcg import Memcg

OOM_SCORE_ADJ_MIN = -1000
Candidate = tuple["AddressSpace", Memory, int]


class Killed(Fault):
    """The address space is the OOM killer's victim: what a program gets instead of SIGKILL."""

    def __init__(self, mm: AddressSpace) -> None:
        super().__init__(errno.ENOMEM, 0, f"process {mm.number} ({mm.name}) was killed: {mm.killed}")


def check_alive(mm: AddressSpace) -> None:
    """``fatal_signal_pending``, ``check_stable_address_space``. :raises Killed:"""
    if mm.killed:
        raise Killed(mm)


def oom_badness(mm: AddressSpace, has: Memory, total_pages: int) -> int:
    """``oom_badness``: the pages it has, and ``oom_score_adj`` thousandths of all memory."""
    return has.rss + has.swap + has.tables + mm.oom_score_adj * (total_pages // 1000)


def candidates(host: Host, memcg: Memcg | None) -> list[Candidate]:
    """``oom_evaluate_task`` of each address space (of the group), with its score."""
    total = memcg.limit if memcg is not None else host.frames.ram_pages + host.swap.pages
    found = []
    for mm in host.address_spaces.values():
        if mm.oom_skip or (memcg is not None and mm.memcg is not memcg):
            continue
        has = Memory.of(mm)
        found.append((mm, has, oom_badness(mm, has, total)))
    return found


def select_bad_process(found: list[Candidate]) -> Candidate | None:
    """``select_bad_process``: the highest score, of equals the first."""
    able = [entry for entry in found if entry[0].oom_score_adj != OOM_SCORE_ADJ_MIN]
    return max(able, key=lambda entry: entry[2]) if able else None


def out_of_memory(host: Host, pages: int, mm: AddressSpace | None, memcg: Memcg | None = None) -> Steps[bool]:
    """``out_of_memory``: ``pages`` pages cannot be had for ``mm``. True: a victim's memory has come, try again.

    While a victim is dying, others wait for it instead of killing more.
    """
    if mm is not None and mm.killed:
        return False
    dying = next((other for other in host.address_spaces.values() if other.dying is not None), None)
    if dying is None:
        dying = _oom_kill(host, pages, mm, memcg)
    if dying is None or dying is mm or dying.dying is None:
        return False
    yield dying.dying
    return True


def _oom_kill(host: Host, pages: int, mm: AddressSpace | None, memcg: Memcg | None) -> AddressSpace | None:
    """Choose, report and kill; None: nobody dies, and the request fails."""
    found = candidates(host, memcg)
    chosen = select_bad_process(found)
    message = "Memory cgroup out of memory" if memcg is not None else "Out of memory"
    if chosen is None:
        decided = f"{message}: no process may be killed, the request fails"
    elif not chosen[0].may_be_killed:
        decided = headline(*chosen[:2], message, "Spared (oom_kills_program is false), the request fails:")
    else:
        decided = headline(*chosen[:2], message, "Killed")
    pins = {owner: count for space, _, _ in found for owner, count in space.memlock.pins.items()}
    text = f"{describe(host, pages, memcg, found)}\n{decided}"
    victim = chosen[0].number if chosen is not None else 0
    host.oom(Report(host.scheduler.clock(), pages, Ram.of(host), pins, victim, decided, text))
    if chosen is None or not chosen[0].may_be_killed:
        return None
    oom_kill_process(chosen[0], decided)
    return chosen[0]


def oom_kill_process(victim: AddressSpace, why: str) -> None:
    """``oom_kill_process``: SIGKILL, and work for the reaper."""
    host = victim.host
    host.counters["oom_kill"] += 1
    victim.killed = why
    victim.dying = Completion(host.scheduler, f"exit of process {victim.number} ({victim.name})")
    if not victim.is_program:
        host.scheduler.spawn(_do_exit(victim), f"{victim.name}/exit")
    reaps = "oom_reap" in host.discipline.sites
    if reaps:
        host.scheduler.spawn(oom_reap.oom_reaper(victim), "oom_reaper")
    if victim.is_program and not reaps:
        victim.dead()


def _do_exit(victim: AddressSpace) -> Steps[None]:
    """``do_exit`` of the killed process."""
    yield from victim.exit()
