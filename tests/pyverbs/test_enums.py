"""Both enum layouts against the values of pyverbs 59."""

import json
import pickle
from pathlib import Path

import pytest

from nicemu.pyverbs import cm_enums, enums, libibverbs_enums, librdmacm_enums
from nicemu.pyverbs.libibverbs_enums import ibv_access_flags, ibv_qp_type

FACTS = json.loads((Path(__file__).parent / "enums_v59.json").read_text())
LAYOUTS = {
    "pyverbs.libibverbs_enums": (libibverbs_enums, enums),
    "pyverbs.librdmacm_enums": (librdmacm_enums, cm_enums),
}


@pytest.mark.parametrize("module", LAYOUTS)
def test_classes_have_exactly_the_members_of_pyverbs_59(module):
    classes, _ = LAYOUTS[module]
    for name, members in FACTS[module]["enums"].items():
        assert {m: int(v) for m, v in getattr(classes, name).__members__.items()} == members


@pytest.mark.parametrize("module", LAYOUTS)
def test_new_layout_has_only_the_constants_without_a_class(module):
    classes, _ = LAYOUTS[module]
    ints = {name: value for name, value in vars(classes).items() if isinstance(value, int)}
    assert ints == FACTS[module]["module_ints"]


@pytest.mark.parametrize("module", LAYOUTS)
def test_old_layout_has_every_member_at_module_level(module):
    _, flat = LAYOUTS[module]
    for members in FACTS[module]["enums"].values():
        for name, value in members.items():
            assert getattr(flat, name) == value


def test_old_layout_has_constants_without_underscore_too():
    assert enums.IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE == enums._IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE == 1


def test_star_import_of_the_old_layout():
    names = {}
    exec("from nicemu.pyverbs.enums import *", names)
    assert names["IBV_QPT_RC"] is ibv_qp_type.IBV_QPT_RC


def test_or_of_flags_is_a_plain_int():
    both = ibv_access_flags.IBV_ACCESS_LOCAL_WRITE | ibv_access_flags.IBV_ACCESS_REMOTE_WRITE
    assert type(both) is int and both == 3


def test_a_value_without_a_name_is_legal():
    assert ibv_access_flags(3) == 3
    assert repr(ibv_access_flags(3)) == "<ibv_access_flags: 3>"


def test_str_and_format_give_the_number():
    assert str(ibv_qp_type.IBV_QPT_RC) == f"{ibv_qp_type.IBV_QPT_RC}" == "2"


def test_members_and_nameless_values_pickle():
    for value in (ibv_qp_type.IBV_QPT_UD, ibv_access_flags(3)):
        assert pickle.loads(pickle.dumps(value)) == value


def test_no_number_is_no_member():
    with pytest.raises(ValueError):
        ibv_qp_type("RC")
