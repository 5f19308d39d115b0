"""Linux memory management, modelled: one file per concept, Linux's own words."""

from nicemu.mm.address_space import AddressSpace
from nicemu.mm.host import Host
from nicemu.mm.interval import IntervalNotifier
from nicemu.mm.lock_report import Report
from nicemu.mm.locks import Mutex
from nicemu.mm.notifier import Event, NotifierRange, NotifierSubscriber
from nicemu.mm.page import Fault
from nicemu.mm.syscalls import Process

__all__ = [
    "AddressSpace", "Event", "Fault", "Host", "IntervalNotifier", "Mutex", "NotifierRange", "NotifierSubscriber",
    "Process", "Report",
]  # fmt: skip
