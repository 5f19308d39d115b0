"""The fabric of a lab as Python sees it: built from the configuration, asked for reports, told of ports going down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nicemu.fabric import cable, story
from nicemu.fabric.cable import name_of, refresh, rows_of
from nicemu.tables.records import INFINITY, LINK, ImpairKind, PacketField
from nicemu.tables.world import World
from nicemu.wire.opcode import RcOpcode, Transport

ANY_OPERATION = (1 << 32) - 1
CHANCE = 1 << 32
_NAMES = LINK.names or ()
COUNTERS = _NAMES[_NAMES.index("packets") :]


class Fabric:
    """Links, switch and impairments of a world whose NICs are there.

    ``profile`` is a ``FabricProfile``, ``impairments`` are ``Impairment``s (nicemu.config). None: the wires that the
    NICs' own profiles describe.
    """

    def __init__(self, world: World, profile: Any = None, impairments: Iterable[Any] = (), seed: int = 1) -> None:
        self.world, self.nics = world, int(world.fabric[0].nics)
        self.row = world.fabric[0]
        self.row.seed = seed
        self.rules: list[Any] = []
        if profile is not None:
            for link in profile.links:
                self._set_link(link)
            if profile.switch is not None:
                self._set_switch(profile.switch)
        for rule in impairments:
            self.add(rule)
        self._refresh()

    def _links(self) -> range:
        return range(1, 2 * self.nics + 1)

    def _refresh(self) -> None:
        for number in self._links():
            refresh(self.world, number)

    def _set_link(self, profile: Any) -> None:
        """Both directions of the named NICs' cables; a link is never faster than the NIC's port."""
        for nic in range(self.nics) if profile.nics is None else profile.nics:
            own = int(self.world.nic[nic + 1].ps_per_byte)
            for number in rows_of(nic + 1):
                row = self.world.link[number]
                if profile.rate_gbps is not None:
                    row.ps_per_byte = max(own, cable.ps_per_byte(profile.rate_gbps))
                if profile.delay_ns is not None:
                    row.delay_ns = profile.delay_ns
                if profile.mtu is not None:
                    row.mtu = profile.mtu
                if number & 1:
                    row.queue_packets, row.queue_bytes = profile.queue_packets or 0, profile.queue_bytes or 0

    def _set_switch(self, profile: Any) -> None:
        row = self.row
        row.switched, row.latency_ns = 1, profile.latency_ns
        if profile.ecn is not None:
            row.ecn_min, row.ecn_max = profile.ecn.kmin_bytes, profile.ecn.kmax_bytes
            row.ecn_chance = round(profile.ecn.pmax * CHANCE)
        if profile.pause is not None:
            row.xoff, row.xon = profile.pause.xoff_bytes, profile.pause.xon_bytes
        for number in self._links():
            if number & 1 == 0:
                out = self.world.link[number]
                out.queue_packets, out.queue_bytes = profile.queue_packets or 0, profile.queue_bytes or 0

    # -- impairments

    def add(self, rule: Any) -> int:
        """Plant an impairment, behind those that are there; the answer is its number, from 1.

        :raises ValueError: the table of impairments, of their links or of their numbers is full.
        """
        row, links = self.row, self._links_of(rule)
        capacity = self.world.capacity
        index = int(row.impairments) + 1
        if index >= capacity.impairments or int(row.taps) + len(links) >= capacity.taps:
            raise ValueError(f"impairments: expected fewer than {capacity.impairments}")
        self._write(self.world.impair[index], rule)
        row.impairments = index
        self.rules.append(rule)
        for number in links:
            self._tap(number, index)
        return index

    def _links_of(self, rule: Any) -> list[int]:
        """Rows of the links that a rule acts on, in order."""
        found = []
        for nic in range(self.nics) if rule.nics is None else sorted(set(rule.nics)):
            out, into = rows_of(nic + 1)
            found += [{"out": out, "in": into}[side] for side in rule.sides]
        return found

    def _tap(self, number: int, index: int) -> None:
        """Hang impairment ``index`` behind the last one of a link."""
        world = self.world
        self.row.taps += 1
        new = int(self.row.taps)
        world.tap[new].impairment = index
        link = world.link[number]
        at = int(link.first_tap)
        if at == 0:
            link.first_tap = new
        while at and world.tap[at].next:
            at = int(world.tap[at].next)
        if at:
            world.tap[at].next = new
        refresh(world, number)

    def _numbers(self, values: Sequence[int]) -> tuple[int, int]:
        """Store a list: its first row and length.

        :raises ValueError: no room.
        """
        first = int(self.row.numbers) + 1
        if first + len(values) > self.world.capacity.numbers:
            raise ValueError(f"impairments: expected at most {self.world.capacity.numbers} packet numbers and PSNs")
        self.world.number.value[first : first + len(values)] = values
        self.row.numbers += len(values)
        return first, len(values)

    def _write(self, row: Any, rule: Any) -> None:
        row.kind = ImpairKind[rule.kind.upper()]
        row.transport = -1 if rule.transport is None else Transport[rule.transport]
        row.operations = sum(1 << RcOpcode[name] for name in set(rule.operations)) or ANY_OPERATION
        row.qpn = -1 if rule.qpn is None else rule.qpn
        row.from_ns = rule.from_ns
        row.until_ns = INFINITY if rule.until_ns is None else rule.until_ns
        row.chance = -1 if rule.probability is None else round(rule.probability * CHANCE)
        row.every = rule.every or 0
        row.numbers, row.number_count = self._numbers(sorted(rule.packets))
        row.psns, row.psn_count = self._numbers(sorted(rule.psns))
        row.limit = -1 if rule.count is None else rule.count
        row.delay_ns, row.jitter_ns = rule.delay_ns, rule.jitter_ns
        row.bit = -1 if rule.bit is None else rule.bit
        if rule.field is not None:
            row.field = PacketField[rule.field.upper()]
            row.value, row.add = (rule.value, 0) if rule.add is None else (rule.add, 1)

    # -- what others ask for

    def set_link_up(self, nic_number: int, up: bool) -> None:
        """The cable of a NIC (from 1) works, or loses everything in both directions; so does its port."""
        for number in rows_of(nic_number):
            self.world.link[number].up = int(up)
            refresh(self.world, number)
        self.world.nic[nic_number].port_down = int(not up)

    def captured(self) -> dict[int, str]:
        """Names of the links that a capture sees, by row."""
        return {number: name_of(number) for number in self._links() if self.world.link[number].captured}

    @property
    def fired(self) -> int:
        """Faults injected so far."""
        return int(self.row.fired)

    def describe(self, number: int) -> str:
        """What fault ``number`` (``packet.fault``, from 1) was, for people: kind, packet, link, time."""
        return story.describe(self.world, [rule.title for rule in self.rules], number)

    def firings(self) -> list[tuple[str, int]]:
        """Each impairment's name and how often it fired, in the order of the configuration."""
        return [(rule.title, int(self.world.impair[i].fired)) for i, rule in enumerate(self.rules, 1)]

    def counters(self, row: int) -> dict[str, int]:
        """Counters of a link by name."""
        return {name: int(self.world.link[row][name]) for name in COUNTERS}

    def report(self) -> list[str]:
        """A line for each impairment, and for each link that lost, marked or paused something."""
        lines = []
        for name, count in self.firings():
            text = f"fired {count} time{'s' if count > 1 else ''}" if count else "never fired"
            lines.append(f"impairment '{name}' {text}")
        for number in self._links():
            counters = self.counters(number)
            if any(counters[name] for name in COUNTERS[2:]):
                text = "  ".join(f"{name} {value}" for name, value in counters.items() if value)
                lines.append(f"link {name_of(number)}: {text}")
        return lines
