"""States of a NIC as fixtures: ``bench`` (one NIC, nothing on it), ``rc`` (two connected RC QPs)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.nic.testbench import Bench, Mr, Qp, WrOpcode, pair


@dataclass
class Rc:
    """Two connected QPs; ``a`` asks, ``b`` answers; ``local`` belongs to a, ``remote`` to b, both filled and mapped."""

    bench: Bench
    a: Qp
    b: Qp
    local: Mr
    remote: Mr

    def write(self, wr_id: int, length: int, offset: int = 0, at: int = 0, **options: int) -> None:
        """RDMA WRITE of ``local[offset:][:length]`` to ``remote[at:]``."""
        self.a.post_send(
            wr_id,
            WrOpcode.RDMA_WRITE,
            self.local.sge(length, offset),
            remote=self.remote.va + at,
            rkey=self.remote.key,
            **options,
        )

    def read(self, wr_id: int, length: int, offset: int = 0, at: int = 0, **options: int) -> None:
        """RDMA READ of ``remote[at:][:length]`` to ``local[offset:]``."""
        self.a.post_send(
            wr_id,
            WrOpcode.RDMA_READ,
            self.local.sge(length, offset),
            remote=self.remote.va + at,
            rkey=self.remote.key,
            **options,
        )

    def send(self, wr_id: int, length: int, offset: int = 0, **options: int) -> None:
        """SEND of ``local[offset:][:length]``."""
        self.a.post_send(wr_id, WrOpcode.SEND, self.local.sge(length, offset), **options)

    def add(self, wr_id: int, amount: int, at: int = 0, **options: int) -> None:
        """Fetch-and-add on ``remote[at:]``; the old value lands at ``local[0:8]``."""
        self.a.post_send(
            wr_id,
            WrOpcode.ATOMIC_FETCH_AND_ADD,
            self.local.sge(8),
            remote=self.remote.va + at,
            rkey=self.remote.key,
            compare=amount,
            **options,
        )

    def swap(self, wr_id: int, compare: int, swap: int, at: int = 0, **options: int) -> None:
        """Compare-and-swap on ``remote[at:]``; the old value lands at ``local[0:8]``."""
        self.a.post_send(
            wr_id,
            WrOpcode.ATOMIC_CMP_AND_SWP,
            self.local.sge(8),
            remote=self.remote.va + at,
            rkey=self.remote.key,
            compare=compare,
            swap=swap,
            **options,
        )


def connected(bench: Bench, pages: int = 4, local: bool = True, remote: bool = True, **changes: int) -> Rc:
    """RC pair with ``pages`` pages on each side; ``local=False`` or ``remote=False`` leaves that side unmapped."""
    a, b = pair(bench, **changes)
    rc = Rc(bench, a, b, bench.mr(pages, mapped=local), bench.mr(pages, mapped=remote))
    rc.local.fill(1)
    rc.remote.fill(2)
    return rc


@pytest.fixture
def bench() -> Bench:
    """One NIC with its EQs."""
    return Bench()


@pytest.fixture
def rc(bench: Bench) -> Rc:
    """Connected, everything mapped."""
    return connected(bench)


@pytest.fixture
def rc_cold_local(bench: Bench) -> Rc:
    """Connected; no page of the requester's region is mapped."""
    return connected(bench, local=False)


@pytest.fixture
def rc_cold_remote(bench: Bench) -> Rc:
    """Connected; no page of the responder's region is mapped."""
    return connected(bench, remote=False)
