"""Texts and numbers of errors."""

import errno

import pytest

from nicemu.pyverbs.base import PyverbsRDMAErrno, inc_rkey
from nicemu.pyverbs.device import Context, get_device_list
from nicemu.pyverbs.mr import MR, MW
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.uverbs import memory_messages, messages


def test_message_names_the_errno():
    error = PyverbsRDMAError("Failed to query port 7", errno.EINVAL)
    assert str(error) == "Failed to query port 7. Errno: 22, Invalid argument"
    assert error.error_code == errno.EINVAL


def test_message_without_errno_is_as_given():
    assert str(PyverbsRDMAError("x")) == "x" and PyverbsRDMAError("x").error_code == -1


def test_family():
    assert issubclass(PyverbsRDMAError, PyverbsError) and issubclass(PyverbsUserError, PyverbsError)


def test_errno_is_that_of_the_last_failed_command(kernel, ctx):
    with pytest.raises(PyverbsRDMAError):
        ctx.query_port(9)
    assert PyverbsRDMAErrno("again").error_code == errno.EINVAL


def test_context_needs_a_name(kernel):
    with pytest.raises(PyverbsUserError, match="Device name must be provided"):
        Context()


def test_unknown_device_has_no_errno(kernel):
    with pytest.raises(PyverbsRDMAError) as info:
        Context(name="mlx5_0")
    assert (str(info.value), info.value.error_code) == ("Failed to find device mlx5_0", -1)


def test_no_devices_is_an_error(kernel):
    kernel.do_ListDevices = lambda command: ()
    with pytest.raises(PyverbsRDMAError, match="Failed to get devices list"):
        get_device_list()


def test_pd_needs_a_context(kernel):
    with pytest.raises(PyverbsUserError, match="Cannot create PD from"):
        PD("nicemu0")


def test_mr_failure_names_length_and_access(kernel, pd):
    kernel.fail[memory_messages.RegMr] = errno.EINVAL
    with pytest.raises(PyverbsRDMAError, match=r"Failed to register a MR. length: 64, access flags: 2\. Errno: 22"):
        MR(pd, 64, 2)


def test_kernel_rule_is_the_cause(kernel, pd):
    kernel.fail[memory_messages.RegMr] = errno.EINVAL
    with pytest.raises(PyverbsRDMAError) as info:
        MR(pd, 64, 2)
    assert isinstance(info.value.__cause__, messages.VerbsError)


def test_what_the_device_lacks_is_eopnotsupp(pd):
    with pytest.raises(PyverbsRDMAError) as info:
        Context(cmid=pd)
    assert info.value.error_code == errno.EOPNOTSUPP


def test_typed_argument(ctx):
    with pytest.raises(TypeError, match="Argument 'pd' has incorrect type"):
        MW(ctx, 1)


def test_a_closed_object_says_so(kernel, pd):
    mr = MR(pd, 64, 1)
    mr.close()
    with pytest.raises(PyverbsUserError, match="This MR is closed"):
        _ = mr.lkey


def test_inc_rkey_wraps_its_low_byte():
    assert inc_rkey(0x1FF) == 0x100 and inc_rkey(0x100) == 0x101
