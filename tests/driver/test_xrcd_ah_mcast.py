"""XRC domains, address handles, multicast membership."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from nicemu.abi.command import AvField, Command, Status
from nicemu.abi.verbs import QpType
from nicemu.config import NicProfile
from nicemu.driver import DriverError, ah, context, mcast, qp, xrcd
from nicemu.uverbs.messages import AddressVector
from tests.driver.bench import Bench
from tests.driver.fake_device import GID
from tests.driver.objects import Objects

GROUP = bytes.fromhex("ff0e0000000000000000000000000001")
V4_GROUP = bytes(10) + bytes.fromhex("ffffe6000001")
V4_HOST = bytes(10) + bytes.fromhex("ffff0a000001")


def errno_of(call: Any) -> int | None:
    with pytest.raises(DriverError) as caught:
        call()
    return caught.value.errno


# XRC domains ----------------------------------------------------------------------------------------------------------


def test_all_who_open_a_file_share_its_domain(bench: Bench, made: Objects) -> None:
    first, second = made.xrcd(), Objects(bench).xrcd(flags=0)
    assert first.number == second.number and first.handle != second.handle


def test_without_a_file_a_domain_belongs_to_its_opener(made: Objects) -> None:
    assert made.xrcd(inode=None).number != made.xrcd(inode=None, flags=0).number


def test_the_flags_of_open_count(made: Objects) -> None:
    assert errno_of(lambda: made.xrcd(flags=0)) == errno.EAGAIN
    made.xrcd(os.O_CREAT | os.O_EXCL)
    assert errno_of(lambda: made.xrcd(os.O_CREAT | os.O_EXCL)) == errno.EINVAL


def test_a_domain_ends_with_its_last_close(bench: Bench, made: Objects) -> None:
    first, second = made.xrcd(), made.xrcd()
    xrcd.close(first)
    assert made.xrcd(flags=0).number == second.number
    bench.call(context.close(made.context))
    assert errno_of(lambda: Objects(bench).xrcd(flags=0)) == errno.EAGAIN


def test_a_used_domain_is_busy(bench: Bench, made: Objects) -> None:
    domain = made.xrcd()
    target = made.target(domain)
    assert errno_of(lambda: xrcd.close(domain)) == errno.EBUSY
    bench.call(qp.destroy(target))
    xrcd.close(domain)


# Address handles ------------------------------------------------------------------------------------------------------


def vector(gid: bytes = GID, **values: Any) -> AddressVector:
    return AddressVector(is_global=1, dgid=gid, **values)


def test_the_device_gets_the_address_vector(bench: Bench, made: Objects) -> None:
    handle = bench.call(ah.create(made.pd, vector(sgid_index=1, flow_label=5, traffic_class=6, hop_limit=7, sl=2)))
    words = dict(zip(AvField, bench.device.ahs[handle.number], strict=True))
    assert words[AvField.DEST_NIC] == 1 and words[AvField.MULTICAST] == 0 and words[AvField.SGID_INDEX] == 1
    assert [words[f] for f in (AvField.FLOW_LABEL, AvField.TRAFFIC_CLASS, AvField.HOP_LIMIT, AvField.SL)] == [
        5,
        6,
        7,
        2,
    ]
    halves = (words[f].to_bytes(8, "big", signed=True) for f in (AvField.DGID_HIGH, AvField.DGID_LOW))
    assert b"".join(halves) == GID and made.pd.users == 1
    bench.call(ah.destroy(handle))
    assert not bench.device.ahs and made.pd.users == 0


@pytest.mark.parametrize(
    ("gid", "nic", "group"), [(GROUP, 0, 1), (V4_GROUP, 0, 1), (V4_HOST, 0, 0), (bytes(16), 0, 0), (GID, 1, 0)]
)
def test_groups_have_no_nic_and_nobodys_gid_neither(bench: Bench, made: Objects, gid: bytes, nic: int,
                                                    group: int) -> None:  # fmt: skip
    handle = bench.call(ah.create(made.pd, vector(gid)))
    words = bench.device.ahs[handle.number]
    assert (words[AvField.DEST_NIC], words[AvField.MULTICAST]) == (nic, group)


def test_handles_run_out() -> None:
    bench = Bench(profile=NicProfile(max_ah=1))
    made = Objects(bench)
    handle = bench.call(ah.create(made.pd, vector()))
    assert errno_of(lambda: bench.call(ah.create(made.pd, vector()))) == errno.ENOMEM
    bench.call(ah.destroy(handle))
    bench.device.refuse[Command.CREATE_AH] = Status.BAD_RESOURCE
    assert errno_of(lambda: bench.call(ah.create(made.pd, vector()))) == errno.EINVAL
    del bench.device.refuse[Command.CREATE_AH]
    bench.call(ah.create(made.pd, vector()))
    assert made.pd.users == 1


# Multicast ------------------------------------------------------------------------------------------------------------


def test_only_ud_qps_join_only_groups(bench: Bench, made: Objects) -> None:
    assert errno_of(lambda: bench.call(mcast.attach(made.qp(QpType.RC), GROUP))) == errno.EINVAL
    datagrams = made.qp(QpType.UD)
    for gid in (GID, V4_HOST, b"\xff"):
        assert errno_of(lambda gid=gid: bench.call(mcast.attach(datagrams, gid))) == errno.EINVAL
    bench.call(mcast.attach(datagrams, V4_GROUP))
    halves = (int.from_bytes(half, "big", signed=True) for half in (V4_GROUP[:8], V4_GROUP[8:]))
    assert bench.device.members == {(datagrams.number, *halves)}


def test_joining_twice_is_joining_once_and_leaving_needs_membership(bench: Bench, made: Objects) -> None:
    datagrams = made.qp(QpType.UD)
    for _ in range(2):
        bench.call(mcast.attach(datagrams, GROUP))
    bench.call(mcast.detach(datagrams, GROUP))
    assert not bench.device.members
    assert errno_of(lambda: bench.call(mcast.detach(datagrams, GROUP))) == errno.EINVAL


def test_a_member_is_busy_until_it_leaves_or_its_context_goes(bench: Bench, made: Objects) -> None:
    datagrams = made.qp(QpType.UD)
    bench.call(mcast.attach(datagrams, GROUP))
    assert errno_of(lambda: bench.call(qp.destroy(datagrams))) == errno.EBUSY
    bench.call(context.close(made.context))
    assert not bench.device.members and not bench.device.qps


@pytest.mark.parametrize(
    "limits", [{"max_mcast_grp": 1}, {"max_mcast_qp_attach": 1}, {"max_total_mcast_qp_attach": 1}], ids=str
)
def test_groups_and_members_run_out(limits: dict[str, int]) -> None:
    bench = Bench(profile=NicProfile(**limits))
    made = Objects(bench)
    bench.call(mcast.attach(made.qp(QpType.UD), GROUP))
    other = V4_GROUP if "max_mcast_grp" in limits else GROUP
    assert errno_of(lambda: bench.call(mcast.attach(made.qp(QpType.UD), other))) == errno.ENOMEM


def test_a_refused_join_is_no_membership(bench: Bench, made: Objects) -> None:
    datagrams = made.qp(QpType.UD)
    bench.device.refuse[Command.ATTACH_MCAST] = Status.NO_MEMORY
    assert errno_of(lambda: bench.call(mcast.attach(datagrams, GROUP))) == errno.ENOMEM
    bench.call(qp.destroy(datagrams))


def test_a_device_without_groups_says_so() -> None:
    bench = Bench(profile=NicProfile(max_mcast_grp=0))
    datagrams = Objects(bench).qp(QpType.UD)
    assert errno_of(lambda: bench.call(mcast.attach(datagrams, GROUP))) == errno.EOPNOTSUPP
