"""Vendors' packages: they import, and the emulated device is none of theirs."""

import importlib
import pkgutil

import pytest

from nicemu.pyverbs import providers
from nicemu.pyverbs.cq import CQEX
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.providers.efa.efadv import EfaCQ
from nicemu.pyverbs.providers.mlx5 import mlx5_enums, mlx5dv
from nicemu.pyverbs.pyverbs_error import PyverbsUserError
from nicemu.pyverbs.qp import QPEx
from tests.pyverbs.fake_endpoint import VALUES

MODULES = [found.name for found in pkgutil.walk_packages(providers.__path__, providers.__name__ + ".")]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("name", ["Mlx5Context", "Mlx5QP", "Mlx5CQ", "Mlx5UMEM", "Wqe"])
def test_what_stands_for_something_on_the_device_refuses_in_one_line(name: str) -> None:
    with pytest.raises(PyverbsUserError, match=rf"^The emulated device is no mlx5 device: it has no {name}$"):
        getattr(mlx5dv, name)(None, attr=None)


def test_functions_refuse_too() -> None:
    with pytest.raises(PyverbsUserError, match="no mlx5 device"):
        mlx5dv.qpts_to_str(1)


def test_attributes_hold_what_they_are_given() -> None:
    attr = mlx5dv.Mlx5DVContextAttr(flags=3)
    attr.comp_mask = 1
    assert (attr.flags, attr.comp_mask) == (3, 1)


def test_classes_have_the_bases_of_the_real_ones() -> None:
    assert issubclass(mlx5dv.Mlx5QP, QPEx) and issubclass(EfaCQ, CQEX) and issubclass(mlx5dv.Mlx5Context, Context)


def test_a_name_that_the_real_module_has_not_is_missing() -> None:
    with pytest.raises(ImportError):
        from nicemu.pyverbs.providers.mlx5.mlx5dv import Mlx6Context  # noqa: F401


def test_members_of_enums_are_found_in_their_class_and_in_the_module() -> None:
    member = mlx5_enums.mlx5dv_context_attr_flags.MLX5DV_CONTEXT_FLAGS_DEVX
    assert member == mlx5_enums.MLX5DV_CONTEXT_FLAGS_DEVX == 1
    with pytest.raises(AttributeError):
        mlx5_enums.MLX5DV_NO_SUCH_NAME  # noqa: B018


def test_ticks_of_any_device_become_nanoseconds(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VALUES, "hca_core_clock", 500_000)  # kHz
    assert mlx5dv.Mlx5Context.device_timestamp_to_ns(ctx, 10) == 20


def test_refused_objects_leave_no_trace(ctx: Context) -> None:
    with pytest.raises(PyverbsUserError):
        mlx5dv.Mlx5QP(ctx, None, None)
    ctx.close()
