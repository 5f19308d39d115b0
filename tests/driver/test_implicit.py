"""Implicit on-demand regions: children made by faults, published afterwards, freed when they are empty."""

from __future__ import annotations

import errno

import pytest

from nicemu.abi.command import Command, MkeyFlag
from nicemu.abi.verbs import Access
from nicemu.driver import DriverError, advise_mr, mr, pd
from nicemu.driver.mr import WHOLE_ADDRESS_SPACE, Mr
from nicemu.timeline import Steps
from tests.driver.bench import Bench

ODP = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ | Access.ON_DEMAND
GIB, PAGE = 1 << 30, 4096
NEAR = 5 * GIB - PAGE


@pytest.fixture(params=["v6.12", "v3.7"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def register(bench: Bench) -> Mr:
    domain = pd.allocate(bench.open())
    region: Mr = bench.call(mr.register(domain, 0, WHOLE_ADDRESS_SPACE, ODP, 0))
    return region


def children(region: Mr) -> dict[int, Mr]:
    return region.umem.children  # type: ignore[union-attr]


def shown(bench: Bench, region: Mr) -> dict[int, int]:
    """The parent's entries in the device: key of the child of each GiB."""
    return {slot: key for slot, key in bench.device.mkeys[region.index].mtt.items() if key}


def test_registration_makes_a_parent_and_touches_no_memory(bench: Bench) -> None:
    region = register(bench)
    made = bench.device.mkeys[region.index]
    assert (made.base, made.length, made.flags) == (0, 1 << 47, MkeyFlag.ODP | MkeyFlag.IMPLICIT)
    assert [opcode for opcode, _ in bench.device.log] == [Command.CREATE_MKEY] and bench.mm.faulted == []


@pytest.mark.parametrize(
    ("address", "access", "iova"), [(PAGE, ODP, PAGE), (0, ODP & ~Access.ON_DEMAND, 0), (0, ODP, PAGE)]
)
def test_what_is_not_the_whole_address_space_on_demand_is_refused(
    bench: Bench, address: int, access: int, iova: int
) -> None:
    domain = pd.allocate(bench.open())
    with pytest.raises(DriverError) as caught:
        bench.call(mr.register(domain, address, WHOLE_ADDRESS_SPACE, access, iova))
    assert caught.value.errno == errno.EINVAL


def test_a_fault_makes_the_child_of_its_gib_and_shows_it_last(bench: Bench) -> None:
    region = register(bench)
    bench.device.log.clear()
    bench.device.rdma_fault(9, region.key, 3 * GIB + 2 * PAGE + 5, PAGE)
    bench.run()
    child = children(region)[3]
    assert bench.device.mkeys[child.index].base == 3 * GIB and sorted(bench.frames_of(child)) == [2, 3]
    assert shown(bench, region) == {3: child.key} and bench.device.resumed == [(9, 0)]
    assert [(opcode, p[0]) for opcode, p in bench.device.log] == [
        (Command.CREATE_MKEY, child.index), (Command.UPDATE_MTT, child.index), (Command.UPDATE_MTT, region.index),
        (Command.PAGE_FAULT_RESUME, 9),
    ]  # fmt: skip
    assert region.counters.page_faults == 2 and region.umem.mapped == 2  # type: ignore[union-attr]


def test_a_fault_across_gib_makes_two_children_and_one_update_of_the_parent(bench: Bench) -> None:
    region = register(bench)
    bench.device.rdma_fault(9, region.key, NEAR, 2 * PAGE)
    bench.run()
    assert sorted(children(region)) == [4, 5]
    updates = [p[1:3] for opcode, p in bench.device.log if opcode == Command.UPDATE_MTT and p[0] == region.index]
    assert updates == [(4, 2)]


def test_two_faults_at_once_make_one_child(bench: Bench) -> None:
    region = register(bench)
    for token in (1, 2):
        bench.device.rdma_fault(token, region.key, GIB + token * PAGE, 8)
    bench.run()
    assert sorted(bench.device.resumed) == [(1, 0), (2, 0)]
    assert [opcode for opcode, _ in bench.device.log].count(Command.CREATE_MKEY) == 2
    assert sorted(bench.frames_of(children(region)[1])) == [1, 2]


def test_an_empty_child_is_hidden_then_freed(bench: Bench) -> None:
    region = register(bench)
    bench.device.rdma_fault(9, region.key, GIB, 2 * PAGE)
    bench.run()
    index = children(region)[1].index
    bench.call(bench.mm.zap(GIB, GIB + PAGE))
    bench.run()
    assert 1 in children(region)
    bench.device.log.clear()
    bench.call(bench.mm.zap(GIB + PAGE, GIB + 2 * PAGE))
    bench.run()
    assert children(region) == {} and shown(bench, region) == {} and index not in bench.device.mkeys
    assert [opcode for opcode, _ in bench.device.log] == [
        Command.ZAP_MTT, Command.UPDATE_MTT, Command.DESTROY_MKEY,
    ]  # fmt: skip
    bench.device.rdma_fault(10, region.key, GIB, 8)
    bench.run()
    assert shown(bench, region) == {1: children(region)[1].key}


def test_a_fault_that_comes_while_a_child_is_empty_keeps_it(bench: Bench) -> None:
    region = register(bench)
    bench.device.rdma_fault(9, region.key, GIB, 8)
    bench.run()

    def zap() -> Steps[None]:
        yield from bench.mm.zap(GIB, GIB + PAGE)

    bench.mm.during_fault = zap
    bench.device.rdma_fault(10, region.key, GIB + PAGE, 8)
    bench.run()
    assert sorted(bench.frames_of(children(region)[1])) == [1]
    assert shown(bench, region) == {1: children(region)[1].key}


def test_a_fault_that_cannot_be_resolved_leaves_no_child(bench: Bench) -> None:
    region = register(bench)
    bench.mm.absent.add(GIB >> 12)
    bench.device.rdma_fault(9, region.key, GIB, 8)
    bench.run()
    assert bench.device.resumed == [(9, 1)] and children(region) == {} and len(bench.device.mkeys) == 1


def test_deregistration_takes_the_parent_first(bench: Bench) -> None:
    region = register(bench)
    bench.device.rdma_fault(9, region.key, NEAR, 2 * PAGE)
    bench.run()
    bench.device.log.clear()
    bench.call(mr.deregister(region))
    assert [opcode for opcode, _ in bench.device.log] == [Command.DESTROY_MKEY] * 3
    assert bench.device.log[0][1][0] == region.index and bench.device.mkeys == {}
    assert region.pd.users == 0


@pytest.mark.parametrize("flush", [0, advise_mr.FLUSH])
@pytest.mark.parametrize("advice", [advise_mr.PREFETCH, advise_mr.PREFETCH_WRITE])
def test_prefetch(bench: Bench, advice: int, flush: int) -> None:
    region = register(bench)
    bench.call(advise_mr.advise(region.pd, advice, flush, ((NEAR, 2 * PAGE, region.key),)))
    bench.run()
    assert sorted(children(region)) == [4, 5] and region.counters.page_prefetch == 2
    assert {write for _, _, write in bench.mm.faulted} == {advice == advise_mr.PREFETCH_WRITE}


def test_prefetch_without_faulting_maps_what_is_present(bench: Bench) -> None:
    region = register(bench)
    bench.mm.table[GIB // PAGE + 1] = 77
    advice = (GIB, 4 * PAGE, region.key)
    bench.call(advise_mr.advise(region.pd, advise_mr.PREFETCH_NO_FAULT, advise_mr.FLUSH, (advice,)))
    assert bench.frames_of(children(region)[1]) == {1: 77} and bench.mm.faulted == []
    assert shown(bench, region) == {1: children(region)[1].key}
