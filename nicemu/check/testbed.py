"""A scenario set up on a lab: the program's memory, its MRs, an RC pair per verbs thread, and what the checks need."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from nicemu.abi import rings
from nicemu.abi.rings import CQE, CQE_BYTES, CQE_OWNER, SEND_WQE, SGE, Doorbell, doorbell_offset, owner
from nicemu.abi.verbs import Access, QpAttrMask, QpState, WcStatus, WrOpcode
from nicemu.check.mirrors import mirror
from nicemu.check.operations import PAGE
from nicemu.check.reference import READ, WRITE, Cell, State, uniform
from nicemu.check.requests import Verbs
from nicemu.check.scenario import Area, Scenario
from nicemu.config import load_config
from nicemu.lab.lab import Lab
from nicemu.mm.file import FileKind
from nicemu.mm.page_table import PFN_SHIFT
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Completion, Steps
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m

REMOTE = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ
SLOTS = 32
"""Pages of the peer's buffer, for each verbs thread."""


@dataclass(slots=True)
class Pair:
    """A thread's RC pair: requester QP, its CQ, WRs in flight, the peer's buffer."""

    qp: m.QpResponse
    cq: m.CqResponse
    buffer: int
    lkey: int
    frames: list[int]
    """Of the buffer, which is pinned."""
    posted: int = 0
    polled: int = 0
    waiting: dict[int, Completion] = field(default_factory=dict)


class Testbed:
    """``areas``: address of each area by name; ``spaces``: the program (``""``) and its children by name."""

    def __init__(self, scenario: Scenario, discipline: str, mutants: tuple[str, ...] = ()) -> None:
        self.scenario = scenario
        settings = load_config(None, {"memory": "model", "discipline": discipline, "mutants": list(mutants)})
        self.lab = lab = Lab(_changed(settings, scenario))
        self.host, self.mm = lab.host, lab.process.mm
        self.spaces: dict[str, Any] = {"": lab.process}
        self.areas: dict[str, int] = {}
        self.sizes = {area.name: area.known for area in scenario.areas}
        self.lengths = {area.name: area.pages * PAGE for area in scenario.areas}
        self.mrs: dict[str, mem.MrResponse] = {}
        self.files: dict[str, Any] = {}
        self.pairs: dict[str, Pair] = {}
        self.state: State = {}
        self._set_up()

    # Set-up ----------------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        scenario, execute = self.scenario, self.lab.endpoint.execute
        self.context = execute(m.OpenDevice("nicemu0"))
        self.pd = execute(m.AllocPd(self.context))
        for area in scenario.areas:
            self._map(area)
        for name, operations in scenario.threads.items():
            if any(isinstance(operation, Verbs) for operation in operations):
                self.pairs[name] = self._pair()
        for name in scenario.warm:
            self._warm(name)
        for operation in scenario.before:
            self.now(operation.run(self), str(operation))
            for effect in operation.effects("before", None):
                assert effect(self.state), f"{scenario.name}: {operation} cannot happen"
        self.subscribers = [mirror(self, name) for name in scenario.subscribers]

    def now(self, steps: Steps[Any], name: str) -> Any:
        """Run a host thread to its end, outside of any schedule."""
        return self.lab.timeline.call(steps, name)

    def _map(self, area: Area) -> None:
        process: Any = self.lab.process
        length = area.pages * PAGE
        if area.file:
            if area.file not in self.files:
                opened = process.open_file(area.file, length, FileKind[area.kind.upper()])
                self.files[area.file] = self.now(opened, "open")
                for page in range(area.pages):
                    self.state[area.file, page] = 0
            file = self.files[area.file]
            address = self.now(process.mmap_file(file, length, area.prot, area.shared, 0), "mmap")
        else:
            address = self.now(self._anonymous(area, length), "mmap")
        self.areas[area.name] = address
        for page in range(area.known):
            file_page = (area.file, page) if area.file else None
            value = None if area.file else 0
            self.state["", area.name, page] = Cell(area.prot, value, file_page, area.shared)
        if area.touched:
            for page in range(area.known):
                self.now(process.write(address + page * PAGE, bytes([area.fill + page & 255]) * PAGE), "write")
                self._store(area, page, area.fill + page & 255)
        if area.odp:
            access = (REMOTE if area.writable else Access.REMOTE_READ) | Access.ON_DEMAND
            self.mrs[area.name] = self.lab.endpoint.execute(mem.RegMr(self.pd, address, length, int(access), address))

    def _anonymous(self, area: Area, length: int) -> Steps[int]:
        if area.align > PAGE:
            return self.mm.mmap(length, READ | WRITE, FrameKind.MODEL, alignment=area.align)
        return self.lab.process.mmap(length, READ | WRITE, 0x22 | area.flags, memory="model")

    def _store(self, area: Area, page: int, value: int) -> None:
        cell = self.state["", area.name, page]
        if cell.file is not None and cell.shared:
            self.state[cell.file] = value
        else:
            self.state["", area.name, page] = cell._replace(value=value)

    def _pair(self) -> Pair:
        run, lab = self.lab.endpoint.execute, self.lab
        cq = run(m.CreateCq(self.context, 64))
        caps = m.Capabilities(SLOTS, 1, 1, 1, 0)
        qps = [run(m.CreateQp(self.pd, 2, cq.handle, cq.handle, caps, 0)) for _ in range(2)]
        vector = m.AddressVector(is_global=1, dgid=lab.devices[0].gids[1], sgid_index=1)
        for qp, peer in (qps, reversed(qps)):
            self._connect(qp.handle, peer.number, vector)
        length = SLOTS * PAGE
        address = self.now(lab.process.mmap(length, READ | WRITE, 0x22, memory="model"), "mmap")
        region = run(mem.RegMr(self.pd, address, length, int(REMOTE), address))
        frames = [int(self.mm.page_table.get((address >> 12) + slot)) >> PFN_SHIFT for slot in range(SLOTS)]
        return Pair(qps[0], cq, address, region.lkey, frames)

    def _connect(self, handle: int, peer: int, vector: m.AddressVector) -> None:
        """To RTS: MTU 4096, endless RNR retries, no ACK timer: nothing is lost, and time is not the schedule's."""
        attr = m.QpAttributes(
            path_mtu=5, dest_qp_num=peer, max_rd_atomic=4, max_dest_rd_atomic=4, min_rnr_timer=1, port_num=1,
            qp_access_flags=REMOTE, timeout=0, retry_cnt=7, rnr_retry=7, ah_attr=vector,
        )  # fmt: skip
        mask = QpAttrMask
        steps = (
            (QpState.INIT, mask.PKEY_INDEX | mask.PORT | mask.ACCESS_FLAGS),
            (QpState.RTR, mask.AV | mask.PATH_MTU | mask.DEST_QPN | mask.RQ_PSN | mask.MAX_DEST_RD_ATOMIC
             | mask.MIN_RNR_TIMER),
            (QpState.RTS, mask.TIMEOUT | mask.RETRY_CNT | mask.RNR_RETRY | mask.SQ_PSN | mask.MAX_QP_RD_ATOMIC),
        )  # fmt: skip
        for state, bits in steps:
            attr.qp_state = state
            self.lab.endpoint.execute(m.ModifyQp(handle, attr, bits | mask.STATE))

    def _warm(self, name: str) -> None:
        """The device writes what is there already, so that it has translations."""
        area = next(area for area in self.scenario.areas if area.name == name)
        pair = next(iter(self.pairs.values()))
        for page in range(area.known):
            self.peer_write(pair, page % SLOTS, area.fill + page)
            self.post(pair, WrOpcode.RDMA_WRITE, page % SLOTS, (name, page, 1), True)
            self.lab.timeline.advance(lambda: self._all_polled(pair), self.host.scheduler.clock() + 10**10)
            self._store(area, page, area.fill + page & 255)
        assert self._all_polled(pair), f"{self.scenario.name}: the set-up does not end"

    def _all_polled(self, pair: Pair) -> bool:
        self.poll()
        return pair.polled == pair.posted

    # What operations use ---------------------------------------------------------------------------------------------

    def at(self, area: str, page: int = 0) -> int:
        """Address of a page of an area."""
        return self.areas[area] + page * PAGE

    def process(self, space: str = "") -> Any:
        """The program, or a child of it."""
        return self.spaces[space]

    def peer_write(self, pair: Pair, slot: int, value: int) -> None:
        """The peer's CPU fills a page of its buffer."""
        self.lab.frames.bytes_of(pair.frames[slot])[:] = value & 255

    def peer_read(self, pair: Pair, slot: int) -> int:
        """The byte that fills a page of the peer's buffer, -1 if it is not one."""
        return uniform(self.lab.frames.bytes_of(pair.frames[slot]).tobytes())

    def post(self, pair: Pair, opcode: WrOpcode, slot: int, target: tuple[str, int, int], remote: bool) -> Completion:
        """Post a WR between the peer's buffer and (area, page, pages); ``remote``: the area is the remote side."""
        qp, (name, page, pages) = pair.qp, target
        index, at = pair.posted, pair.posted % pair.qp.send_slots * pair.qp.send_stride
        mr, area = self.mrs[name], (self.areas[name] + page * PAGE)
        buffer = pair.buffer + slot * PAGE
        far, key, near, lkey = (area, mr.rkey, buffer, pair.lkey) if remote else (buffer, pair.lkey, area, mr.lkey)
        SEND_WQE.pack_into(qp.send_ring, at, index, opcode, 2, 1, 0, far, key, 0, 0, 0, 0, 0)
        SGE.pack_into(qp.send_ring, at + rings.SEND_HEADER_BYTES, near, pages * PAGE, lkey)
        pair.posted += 1
        struct.pack_into("<q", qp.record, rings.DB_SEND, pair.posted)
        self.lab.devices[0].write_doorbell(doorbell_offset(Doorbell.SEND, qp.number), 0)
        pair.waiting[index] = Completion(self.lab.scheduler, f"completion of WR {index}")
        return pair.waiting[index]

    def completed(self) -> bool:
        """A completion waits in some CQ."""
        return any(self._waits(pair) for pair in self.pairs.values())

    @staticmethod
    def _waits(pair: Pair) -> bool:
        at = pair.polled % pair.cq.slots * CQE_BYTES + CQE_OWNER
        return pair.cq.ring[at] == owner(pair.polled, pair.cq.slots)

    def poll(self) -> None:
        """Every thread polls its CQ. A completion's value is its status."""
        for pair in self.pairs.values():
            cq = pair.cq
            while self._waits(pair):
                at = pair.polled % cq.slots * CQE_BYTES
                fields = CQE.unpack_from(cq.ring, at)
                pair.polled += 1
                struct.pack_into("<q", cq.record, rings.DB_CONSUMER, pair.polled)
                waiting = pair.waiting.pop(fields[0], None)
                if waiting is None:
                    raise AssertionError(f"WR {fields[0]} completed twice")
                waiting.complete(WcStatus(fields[5]).name)

    def memory(self) -> State:
        """What a look at all memory finds, by the keys of the reference's pages; None: no access."""
        return {(mm, area, page): self._look(mm, area, page) for mm, area, page in self.pages()}

    def pages(self) -> list[tuple[str, str, int]]:
        """Every page that a scenario's operations could have left."""
        return [(mm, area, page) for mm in self.spaces for area, count in self.sizes.items() for page in range(count)]

    def _look(self, mm: str, area: str, page: int) -> int | None:
        process = self.spaces[mm]
        vma = process.mm.vmas.find(self.at(area, page)) if process is not None else None
        if vma is None:
            return None
        try:
            return uniform(self.now(process.mm.copy_from_user(self.at(area, page), PAGE), "look"))
        except OSError:
            return None


def _changed(settings: Any, scenario: Scenario) -> Any:
    """The configuration with the scenario's host and device."""
    host = settings.host.model_copy(update=scenario.host)
    nic = settings.nic.model_copy(update={"costs": settings.nic.costs.model_copy(update=scenario.nic)})
    return settings.model_copy(update={"host": host, "nic": nic})
