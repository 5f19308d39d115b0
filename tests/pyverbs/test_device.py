"""Devices, ports and GIDs."""

import errno
import os
import subprocess
import sys

import pytest

from nicemu.pyverbs.device import (
    AsyncEvent,
    get_device_list,
    guid_format,
    phys_state_to_str,
    speed_to_str,
    translate_event_type,
    translate_mtu,
)
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.utils import be64toh
from nicemu.uverbs import messages
from tests.pyverbs.fake_endpoint import NODE_GUID


def test_importing_brings_the_modules_but_not_the_engine():
    code = (
        "import sys, nicemu.pyverbs.device, nicemu.pyverbs as p;"
        "print(all(hasattr(p, n) for n in 'cq mr qp pd addr wr'.split()), 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_names_in_the_list_are_bytes(kernel):
    (device,) = get_device_list()
    assert device.name == b"nicemu0" and device.guid == NODE_GUID
    assert str(device) == "Device nicemu0, node type CA, transport type IB, guid 20000fffe000001, index 0"


def test_device_attributes(ctx):
    attr = ctx.query_device()
    assert attr.fw_version == "1.2.3" and attr.atomic_caps == 1 and attr.max_srq == 0
    assert be64toh(attr.node_guid) == NODE_GUID
    assert str(attr).splitlines()[1] == "Node guid             : 0200:00ff:fe00:0001 "


def test_device_attributes_are_read_only(ctx):
    with pytest.raises(AttributeError, match="not writable"):
        ctx.query_device().max_cqe = 1


def test_extended_attributes(ctx):
    attr = ctx.query_device_ex()
    assert attr.phys_port_cnt_ex == attr.orig_attr.phys_port_cnt == 1
    assert (attr.odp_caps.general_caps, attr.odp_caps.rc_odp_caps, attr.odp_caps.xrc_odp_caps) == (1, 31, 0)
    assert attr.max_dm_size == 1 << 16
    assert attr.tm_caps.flags == attr.rss_caps.rx_hash_function == 0
    assert "IBV_ODP_SUPPORT_WRITE" in str(attr.odp_caps)


def test_completion_vectors(ctx):
    assert ctx.num_comp_vectors == 2


def test_a_bad_port_is_named(ctx):
    with pytest.raises(PyverbsRDMAError, match=r"Failed to query port 3. Errno: 22, Invalid argument"):
        ctx.query_port(3)


def test_port_text(ctx):
    assert "Link layer              : Ethernet" in str(ctx.query_port(1))


def test_gid_of_an_empty_entry_is_zero(ctx):
    assert ctx.query_gid(1, 0).gid == "fe80:0000:0000:0000:0200:00ff:fe00:0001"
    assert ctx.query_gid(1, 3).gid == ":".join(["0000"] * 8)


def test_query_gid_has_no_errno(ctx):
    with pytest.raises(PyverbsRDMAError) as info:
        ctx.query_gid(1, 9)
    assert info.value.error_code == -1


def test_gid_types_as_sysfs_has_them(ctx):
    assert [ctx.query_gid_type(1, index) for index in range(3)] == [0, 1, 0]


def test_gid_ex(ctx):
    entry = ctx.query_gid_ex(1, 1)
    assert (entry.gid_type, entry.gid_index, entry.port_num) == (2, 1, 1)
    assert entry.gid_str() == "fe80:0000:0000:0000:0200:00ff:fe00:0001"


def test_gid_ex_of_an_empty_entry_is_enodata(ctx):
    with pytest.raises(PyverbsRDMAError) as info:
        ctx.query_gid_ex(1, 2)
    assert info.value.error_code == errno.ENODATA


def test_gid_table(ctx):
    assert [entry.gid_index for entry in ctx.query_gid_table(8)] == [0, 1]


def test_gid_table_that_does_not_fit_is_minus_einval(ctx):
    with pytest.raises(PyverbsRDMAError) as info:
        ctx.query_gid_table(0)
    assert info.value.error_code == -errno.EINVAL


def test_gid_queries_know_no_flags(ctx):
    for call, code in (
        (lambda: ctx.query_gid_table(8, 1), -errno.EINVAL),
        (lambda: ctx.query_gid_ex(1, 1, 1), errno.EINVAL),
    ):
        with pytest.raises(PyverbsRDMAError) as info:
            call()
        assert info.value.error_code == code


def test_pkeys(ctx):
    assert ctx.query_pkey(1, 0) == 0xFFFF
    assert ctx.get_pkey_index(1, -1) == ctx.get_pkey_index(1, 0x1FFFF) == 0, "C passes 16 bits"
    assert ctx.get_pkey_index(1, 0xFFFF) == 0
    with pytest.raises(PyverbsRDMAError):
        ctx.get_pkey_index(1, 0x1234)


def test_cmd_fd_is_real_and_closed_with_the_context(ctx):
    copy = os.dup(ctx.cmd_fd)
    assert os.fstat(copy).st_ino == os.fstat(ctx.cmd_fd).st_ino
    fd = ctx.cmd_fd
    ctx.close()
    with pytest.raises(OSError):
        os.fstat(fd)
    os.close(copy)


def test_async_event(kernel, ctx):
    kernel.do_GetAsyncEvent = lambda command: messages.AsyncEventResponse(1, "qp", 5)
    event = ctx.get_async_event()
    event.ack()
    assert event.event_type == 1 and "IBV_EVENT_QP_FATAL" in str(event)
    assert AsyncEvent().event_type == 0


def test_names():
    assert translate_mtu(3) == "1024 (3)" and translate_mtu(9) == "Invalid MTU (9)"
    assert speed_to_str(4) == speed_to_str(4, 0) == "5.0 Gbps (4)" and speed_to_str(4, 256) == "200.0 Gbps (256)"
    assert phys_state_to_str(5) == "Link up (5)"
    assert translate_event_type(99) == "Unknown event_type (99)"
    assert guid_format(be64toh(0x0011223344556677)) == "0011:2233:4455:6677"
