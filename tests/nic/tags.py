"""Tag matching on the bench: a TM-SRQ, two clients, two servers on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from nicemu.abi.command import TAG_LIST, QpFlag
from nicemu.abi.rings import SGE, Doorbell, doorbell_offset
from nicemu.abi.tag_matching import OP, OP_HEADER_BYTES, OP_STRIDE, RVH, TAG_FREED, TMH, OpFlag, TagOp, TmhOp
from nicemu.abi.verbs import SrqType, WcFlag, WcOpcode
from tests.nic.objects import Cq, Mr, Qp, Ring, Srq
from tests.nic.testbench import Bench, WrOpcode

COMMAND_QPN, OPS = 77, 64
MATCH, DATA_VALID, SYNC_REQ = WcFlag.TM_MATCH, WcFlag.TM_DATA_VALID, WcFlag.TM_SYNC_REQ
FULL = (1 << 64) - 1


class TagSrq(Srq):
    """A TM-SRQ whose operations are written by hand."""

    def __init__(self, bench: Bench, number: int, cq: Cq, tags: int = 16) -> None:
        self.cq, self.first = cq, bench.device.allocate_tags(tags)
        self.ops, self.ops_record = Ring(OPS * OP_STRIDE), Ring(16)
        words = TAG_LIST.pack(self.first, tags, self.ops.address, OPS, self.ops_record.address, COMMAND_QPN)
        bench.mailbox[: len(words)] = np.frombuffer(words, np.uint8)
        super().__init__(bench, number, cq=cq)

    def _kind(self, cq: Cq | None) -> SrqType:
        return SrqType.TM

    def operate(self, opcode: int, wr_id: int = 0, sges: tuple[tuple[int, int, int], ...] = (),
                handled: int | None = None, signaled: bool = True, **fields: int) -> None:  # fmt: skip
        """Post an operation; ``handled``: report so many unexpected messages with it."""
        flags = (OpFlag.SIGNALED if signaled else 0) | (OpFlag.SYNC if handled is not None else 0)
        tail = self.ops_record.word(0)
        at = tail % OPS * OP_STRIDE
        values = [fields.get(name, 0) for name in ("recv_wr_id", "tag", "mask")]
        OP.pack_into(
            self.ops.view, at, wr_id, *values, opcode, flags, handled or 0, fields.get("handle", 0), len(sges), 99, 0
        )
        for i, sge in enumerate(sges):
            SGE.pack_into(self.ops.view, at + OP_HEADER_BYTES + 16 * i, *sge)
        self.ops_record.word(0, tail + 1)
        self.bench.device.write_doorbell(doorbell_offset(Doorbell.TAG_OPS, self.number), 0)

    def add(self, handle: int, tag: int, *sges: tuple[int, int, int], mask: int = FULL, **options: Any) -> None:
        """Add a tag; its completions carry ``100 + handle``, that of the operation ``handle``."""
        self.operate(TagOp.ADD, handle, sges, handle=handle, recv_wr_id=100 + handle, tag=tag, mask=mask, **options)

    def delete(self, handle: int, wr_id: int = 200, **options: Any) -> None:
        """Delete a tag."""
        self.operate(TagOp.DEL, wr_id, handle=handle, **options)

    def sync(self, handled: int, wr_id: int = 300, **options: Any) -> None:
        """Report how many unexpected messages are handled."""
        self.operate(TagOp.SYNC, wr_id, handled=handled, **options)

    def state(self, handle: int) -> int:
        """The device's ``TagState`` of a handle."""
        return int(self.bench.world.tag[self.first + handle].state)

    @property
    def unexpected(self) -> int:
        """The device's count of unexpected messages."""
        return int(self.bench.world.tag_list[int(self.bench.device.row.srq_base) + self.number].unexpected)


def header(tag: int, operation: int = TmhOp.EAGER, app_ctx: int = 0) -> bytes:
    """A tag-matching header."""
    return TMH.pack(operation, app_ctx, tag)


def request(tag: int, source: Mr, length: int, offset: int = 0, app_ctx: int = 0, rkey: int = 0) -> bytes:
    """A rendezvous request for ``length`` bytes of ``source``."""
    return header(tag, TmhOp.RNDV, app_ctx) + RVH.pack(source.va + offset, rkey or source.key, length)


def tag_of(cqe: dict[str, int]) -> tuple[int, int]:
    """(tag, app_ctx) of a completion."""
    return cqe["pkey"] | cqe["rsvd"] << 32, cqe["src_qp"]


def freed(cqe: dict[str, int]) -> int | None:
    """The handle that a completion gives back."""
    return cqe["wqe"] & ~TAG_FREED if cqe["wqe"] & TAG_FREED else None


def received(cqes: list[dict[str, int]]) -> list[tuple[int, int, int]]:
    """(wr_id, flags, status) of the receive completions among them."""
    return [
        (c["wr_id"], c["flags"], c["status"]) for c in cqes if c["opcode"] in (WcOpcode.TM_RECV, WcOpcode.TM_NO_TAG)
    ]


class Tagged:
    """Clients 2 and 3 talk to servers 4 and 5 (from ``first`` on) on one TM-SRQ; ``local`` is memory of the clients,
    ``remote`` of the servers."""

    def __init__(self, bench: Bench, tags: int = 16, flags: int = QpFlag.RENDEZVOUS, pages: int = 8, cold: bool = False,
                 first: int = 2, **changes: int) -> None:  # fmt: skip
        self.bench, self.cq = bench, Cq(bench, first + 6, 1024)
        self.srq = TagSrq(bench, 1, self.cq, tags)
        self.clients = [Qp(bench, n, Cq(bench, n)) for n in (first, first + 1)]
        self.servers = [Qp(bench, n, Cq(bench, n), srq=self.srq, flags=flags) for n in (first + 2, first + 3)]
        for client, server in zip(self.clients, self.servers, strict=True):
            client.connect(server, **changes)
            server.connect(client, **changes)
        self.local, self.remote = bench.mr(pages, mapped=not cold), bench.mr(pages, mapped=not cold)
        self.sent = self.local.fill(1)
        self.remote.fill(2)

    def write_local(self, data: bytes, at: int) -> None:
        """Put bytes into the clients' memory, within a page."""
        page = self.bench.frames.bytes_of(self.local.frames[at // 4096])
        page[at % 4096 : at % 4096 + len(data)] = np.frombuffer(data, np.uint8)

    def send(self, head: bytes, length: int = 0, wr_id: int = 1, who: int = 0, at: int = 4096, **options: Any) -> bytes:
        """Client ``who`` sends ``head`` and the ``length`` bytes behind it in ``local[at:]``; gives what it sent."""
        self.write_local(head, at)
        opcode = WrOpcode.SEND_WITH_IMM if "imm" in options else WrOpcode.SEND
        self.clients[who].post_send(wr_id, opcode, self.local.sge(len(head) + length, at), **options)
        return self.local.data[at : at + len(head) + length]

    def run(self) -> list[dict[str, int]]:
        """Run to the end: the SRQ's completions."""
        self.bench.run()
        return self.cq.poll()

    def at_server(self, offset: int, length: int) -> bytes:
        """Servers' memory."""
        return self.remote.data[offset : offset + length]

    @property
    def waits(self) -> bool:
        """Something is left to run."""
        control = self.bench.world.control[0]
        return bool(control.pending != control.stale)

    def resolve_faults(self) -> bool:
        """Map the page of each fault that came and let its QP go on; False: there was none."""
        faults = self.bench.faults()
        for fault in faults:
            region = next(mr for mr in (self.local, self.remote) if mr.key == fault["key"])
            region.map((fault["va"] - region.va) // 4096, 1)
            self.bench.resume(fault["token"])
        return bool(faults)
