"""How the classes behave in general. The facts were seen on pyverbs 59, compiled."""

import copy
import logging
import pickle
import subprocess
import sys
import weakref

import pytest

from nicemu.pyverbs import dma_util
from nicemu.pyverbs.addr import GID, AHAttr
from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.cmid import CMID, AddrInfo, CMEvent, CMEventChannel, ConnParam, JoinMCAttrEx
from nicemu.pyverbs.cq import WC, CqInitAttrEx
from nicemu.pyverbs.device import AllocDmAttr, AsyncEvent, Device, DeviceAttr, DeviceAttrEx, PortAttr
from nicemu.pyverbs.libibverbs_enums import (
    ibv_atomic_cap,
    ibv_event_type,
    ibv_mtu,
    ibv_port_state,
    ibv_qp_state,
    ibv_qp_type,
    ibv_srq_type,
    ibv_wc_opcode,
    ibv_wc_status,
)
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr, QPInitAttrEx
from nicemu.pyverbs.srq import SrqAttr, SrqInitAttr, SrqInitAttrEx
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.pyverbs.xrcd import XRCDInitAttr
from tests.pyverbs.fake_endpoint import FakeEndpoint

STRUCTURES = [
    GID(), AHAttr(), WC(), CqInitAttrEx(), AllocDmAttr(8), AsyncEvent(), DeviceAttr(), DeviceAttrEx(), PortAttr(),
    QPAttr(), QPCap(), QPInitAttr(), QPInitAttrEx(), SrqAttr(), SrqInitAttr(), SrqInitAttrEx(), SGE(0, 0, 0), RecvWR(),
    SendWR(num_sge=1, sg=[SGE(0, 0, 0)]), XRCDInitAttr(0, 0, -1), ConnParam(), AddrInfo(), CMID(),
]  # fmt: skip


def name_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("structure", STRUCTURES, ids=name_of)
class TestStructures:
    def test_take_no_attribute_of_the_program(self, structure: object) -> None:
        with pytest.raises(AttributeError):
            structure.no_such_name = 1  # type: ignore[attr-defined]

    def test_can_be_referred_to_weakly(self, structure: object) -> None:
        assert weakref.ref(structure)() is structure

    @pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_cannot_be_copied_or_pickled(self, structure: object, act) -> None:
        with pytest.raises(TypeError):
            act(structure)

    def test_name_their_public_module(self, structure: object) -> None:
        cls = type(structure)
        assert getattr(sys.modules[cls.__module__], cls.__name__) is cls
        assert "._" not in cls.__module__

    def test_can_be_printed(self, structure: object) -> None:
        assert isinstance(str(structure), str)


def test_a_subclass_of_the_program_takes_its_attributes() -> None:
    class Mine(QPCap):
        pass

    mine = Mine()
    mine.purpose = "test"
    assert mine.purpose == "test"


def test_a_subclass_may_say_how_it_is_copied() -> None:
    class Mine(QPCap):
        def __reduce__(self):
            return Mine, (self.max_send_wr,)

    assert copy.copy(Mine(7)).max_send_wr == 7


def test_a_device_of_the_list_can_be_pickled() -> None:
    device = pickle.loads(pickle.dumps(Device(b"nicemu0", 1, 2, 3, 4)))
    assert (device.name, device.guid, device.index) == (b"nicemu0", 1, 4)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (WC(status=12).status, ibv_wc_status.IBV_WC_RETRY_EXC_ERR),
        (WC(opcode=128).opcode, ibv_wc_opcode.IBV_WC_RECV),
        (AsyncEvent(17).event_type, ibv_event_type(17)),
        (DeviceAttr().atomic_caps, ibv_atomic_cap.IBV_ATOMIC_NONE),
        (PortAttr().state, ibv_port_state.IBV_PORT_NOP),
        (PortAttr().active_mtu, ibv_mtu(0)),
        (QPAttr().qp_state, ibv_qp_state.IBV_QPS_INIT),
        (QPInitAttrEx(qp_type=2.9).qp_type, ibv_qp_type.IBV_QPT_RC),
        (SrqInitAttrEx().srq_type, ibv_srq_type.IBV_SRQT_BASIC),
    ],
)
def test_members_of_an_enum_type_read_as_its_members(value: object, expected: object) -> None:
    assert (type(value), value) == (type(expected), expected)


def test_a_qp_tells_type_and_state_as_members(qp: QP) -> None:
    assert repr((qp.qp_type, qp.qp_state)) == "(<ibv_qp_type.IBV_QPT_RC: 2>, <ibv_qp_state.IBV_QPS_RTS: 3>)"


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-1, OverflowError, "can't convert negative value to unsigned int"),
        (2**32, OverflowError, "value too large to convert to unsigned int"),
        (2**64, OverflowError, "Python int too large to convert to C unsigned long"),
        ("1", TypeError, "an integer is required"),
        (None, TypeError, "an integer is required"),
    ],
)
def test_what_is_no_number_of_the_c_type_is_refused(value: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        QPCap(max_send_wr=value)


def test_a_typed_argument_names_the_public_class() -> None:
    text = r"^Argument 'val' has incorrect type \(expected pyverbs.srq.SRQ, got int\)$"
    with pytest.raises(TypeError, match=text):
        QPInitAttr().srq = 3


@pytest.mark.parametrize(
    ("structure", "name"),
    [(DeviceAttr(), "max_qp"), (DeviceAttrEx(), "odp_caps"), (SrqInitAttr(), "max_wr"), (PortAttr(), "lid")],
)
def test_what_is_read_only_there_is_read_only_here(structure: object, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(structure, name, 1)


def test_a_write_only_member_cannot_be_read() -> None:
    CqInitAttrEx().cq_context = "mine"
    with pytest.raises(AttributeError):
        CqInitAttrEx().cq_context  # noqa: B018


def test_each_class_has_a_logger_of_its_name() -> None:
    QPCap().set_log_level(logging.DEBUG)
    assert logging.getLogger("QPCap").level == logging.DEBUG
    logging.getLogger("QPCap").setLevel(logging.NOTSET)


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_importing_sets_logging_up_unless_the_program_has() -> None:
    program = "{}import nicemu.pyverbs.base, logging; logging.getLogger('QP').info('opened')"
    assert "[INFO]" in run(program.format("")) and "opened" in run(program.format(""))
    assert run(program.format("import logging; logging.basicConfig(level=30); ")) == ""


def test_submodules_are_attributes_after_any_import() -> None:
    wanted = "addr base cmid cq device dmabuf enums flow libibverbs_enums librdmacm_enums mr pd pyverbs_error qp srq"
    wanted += " utils wq wr xrcd"
    there = run("import nicemu.pyverbs.qp, nicemu; print(*dir(nicemu.pyverbs))").split()
    assert set(wanted.split()) <= set(there)


def test_names_of_other_modules_come_along_as_in_the_real_ones() -> None:
    names: dict[str, object] = {}
    exec("from nicemu.pyverbs.qp import *", names)
    assert {"QP", "PyverbsError", "PyverbsRDMAErrno", "gid_str"} <= set(names)
    assert "U32" not in names and "Any" not in names


class TestConnectionManager:
    def test_what_needs_a_connection_is_not_supported(self) -> None:
        for make in (CMEventChannel, lambda: CMID(AddrInfo("127.0.0.1")), CMID().listen, CMID().get_request):
            with pytest.raises(PyverbsRDMAError, match=r"Operation not supported$") as error:
                make()
            assert error.value.error_code == 95

    def test_private_data_is_cut_to_what_was_reserved(self) -> None:
        param = ConnParam(data_len=4)
        param.set_private_data(b"abcdef")
        assert param.private_data == b"abcd"
        assert "responder resources: 1   \n" in str(param)

    def test_arguments_are_checked_before_anything_else(self) -> None:
        with pytest.raises(TypeError, match=r"expected pyverbs.cmid.AddrInfo, got NoneType"):
            JoinMCAttrEx(None)
        with pytest.raises(TypeError, match=r"expected pyverbs.cmid.CMEventChannel, got int"):
            CMEvent(3)
        with pytest.raises(TypeError, match="expected bytes, int found"):
            AddrInfo(3)
        with pytest.raises(PyverbsUserError, match="must have AddrInfo or JoinMCAttrEx"):
            CMID().join_multicast()

    def test_an_empty_identifier_has_nothing_and_closes_twice(self) -> None:
        with CMID() as cmid:
            assert (cmid.context, cmid.pd, cmid.qpn, cmid.event_channel) == (None, None, None, None)
            cmid.close()


def test_base_object_is_made_by_anyone() -> None:
    assert isinstance(PyverbsObject(), PyverbsObject)


def test_stores_to_a_register_go_to_the_memory_that_is_named(kernel: FakeEndpoint) -> None:
    address = kernel.process.malloc(16)
    dma_util.udma_to_dev_barrier()
    dma_util.mmio_write64_as_be(address, 0x0102030405060708)
    dma_util.mmio_write32_as_be(address + 8, 0x0A0B0C0D)
    assert kernel.process.read(address, 12) == bytes.fromhex("01020304050607080a0b0c0d")
