"""Integer conversion, and exact instances without new attributes."""

import weakref

import pytest

from nicemu.pyverbs._fields import I32, U8, U64
from nicemu.pyverbs.libibverbs_enums import ibv_qp_type
from nicemu.pyverbs.qp import QPAttr, QPCap
from nicemu.pyverbs.wr import SGE, RecvWR


def test_floats_are_truncated():
    assert SGE(1.9, 2.5, 3.0).addr == 1
    assert QPCap(max_send_wr=5 / 2).max_send_wr == 2


def test_enum_members_become_plain_ints():
    assert type(U64(ibv_qp_type.IBV_QPT_RC)) is int


@pytest.mark.parametrize(
    ("ctype", "value", "message"),
    [
        (U64, -1, "can't convert negative value to unsigned long"),
        (U8, 256, "value too large to convert to uint8_t"),
        (I32, 2**31, "value too large to convert to int"),
    ],
)
def test_values_that_do_not_fit_overflow(ctype, value, message):
    with pytest.raises(OverflowError, match=message):
        ctype(value)


@pytest.mark.parametrize("value", ["1", None, b"1"])
def test_what_is_no_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="an integer is required"):
        SGE(value, 1, 1)


def test_a_negative_wr_id_overflows():
    with pytest.raises(OverflowError):
        RecvWR(wr_id=-1)


def test_exact_instances_take_no_new_attributes():
    with pytest.raises(AttributeError):
        QPCap().max_snd_wr = 1


def test_subclasses_may_add_attributes():
    class Mine(QPAttr):
        def __init__(self):
            super().__init__()
            self.mine = 1

    assert Mine().mine == 1


def test_objects_can_be_referenced_weakly():
    cap = QPCap()
    assert weakref.ref(cap)() is cap


def test_setting_converts():
    attr = QPAttr()
    attr.timeout = 14.7
    assert attr.timeout == 14
    with pytest.raises(OverflowError):
        attr.timeout = 300
