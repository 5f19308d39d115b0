"""Named counters of the lab, and how much they grew."""

from collections.abc import Iterator
from typing import Any


class Counters:
    """`counters["nicemu0.packets_sent"]`: by how much it grew since the test began, or since `restart()`.

    Names are NAME_OF_NIC.COUNTER, `host.COUNTER` and `mr.COUNTER` (all MRs that exist, by the kernel's names). A
    counter that nothing has touched yet is 0; KeyError for a NIC or a NIC's counter that does not exist.
    """

    def __init__(self) -> None:
        self._lab: Any = None
        self._before: dict[str, int] = {}
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._lab, self._before = _lab(), self.now()

    def now(self) -> dict[str, int]:
        """All counters since their lab was built; empty while there is none."""
        lab = _lab()
        return {} if lab is None else dict(_all(lab))

    def grown(self) -> dict[str, int]:
        """Those that grew, and by how much."""
        now = self.now()
        before = self._before if _lab() is self._lab else {}  # another lab began at nothing
        return {name: value - before.get(name, 0) for name, value in now.items() if value != before.get(name, 0)}

    def __getitem__(self, name: str) -> int:
        now = self.now()
        if now and name not in now and not name.startswith(("host.", "mr.")):
            raise KeyError(f"{name} (there are {', '.join(sorted(now))})")
        return self.grown().get(name, 0)


def _lab() -> Any:
    from nicemu.uverbs import session

    return session.current()


def _all(lab: Any) -> Iterator[tuple[str, int]]:
    for device in lab.devices:
        for name, value in device.counters().items():
            yield f"{device.name}.{name}", value
    for name, value in lab.host.counters.items():
        yield f"host.{name}", value
    total: dict[str, int] = {}
    for counters in lab.driver.mr_counters.values():
        for name, value in counters.items():
            total[name] = total.get(name, 0) + value
    for name, value in total.items():
        yield f"mr.{name}", value
