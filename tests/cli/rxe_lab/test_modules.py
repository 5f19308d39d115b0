import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.cli.rxe_lab import modules
from nicemu.cli.rxe_lab.modules import Modules
from tests.cli.rxe_lab import made


def test_a_module_says_what_it_depends_on() -> None:
    assert modules.depends(made.module("ib_core", "udp-tunnel")) == ["ib_core", "udp_tunnel"]


def test_a_module_that_depends_on_nothing_says_so() -> None:
    assert modules.depends(made.module()) == []


def test_soft_dependencies_that_come_before_count() -> None:
    assert modules.depends(made.module("a", softdep="pre: crc32c-generic b post: c")) == ["a", "crc32c_generic", "b"]


def test_what_is_no_elf_file_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a little-endian 64-bit ELF file"):
        modules.information(b"\x7fELF\x01\x01" + bytes(90))


def test_a_name_has_underscores_and_no_suffix() -> None:
    assert modules.name_of("kernel/drivers/char/hw_random/virtio-rng.ko.xz") == "virtio_rng"


@given(st.integers(1, 8).flatmap(lambda n: st.lists(st.lists(st.integers(0, n), max_size=3), min_size=n, max_size=n)))
def test_each_module_comes_after_what_it_depends_on(graph: list[list[int]]) -> None:
    # an edge leads to a smaller number or is left out: no cycle
    needs = {str(node): [str(to) for to in edges if to < node] for node, edges in enumerate(graph)}
    order = modules.in_order(needs, needs)
    assert sorted(order) == sorted(needs)
    for name, before in needs.items():
        assert all(order.index(each) < order.index(name) for each in before)


def test_modules_that_need_each_other_end() -> None:
    assert sorted(modules.in_order(["a"], {"a": ["b"], "b": ["a"]})) == ["a", "b"]


def test_only_what_is_wanted_and_what_it_needs_is_taken() -> None:
    files = {
        "kernel/rdma_rxe.ko.xz": lzma.compress(made.module("ib-core", "built_in")),
        "kernel/core/ib_core.ko": made.module(),
        "kernel/sound.ko.xz": b"never unpacked",
    }
    found = Modules(files).closure(["rdma_rxe", "not_there"])
    assert list(found) == ["kernel/core/ib_core.ko", "kernel/rdma_rxe.ko"]
