"""Radix trees: sparse page -> entry maps whose memory follows what is mapped."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu._jit import entry
from nicemu.tables import World, radix
from nicemu.tables.world import Capacity

SMALL = Capacity(qps=1, cqs=1, mkeys=1, sq_entries=8, packets=8, frames=8, nodes=4096, violations=8, trace=8)


@entry("int64(int64, int64, int64, int64)")
def find(world, root, levels, index):
    """``radix.find`` for Python."""
    return radix.find(world, root, levels, index)


@entry("int64(int64, int64, int64, int64)")
def leaf(world, root, levels, index):
    """``radix.leaf`` for Python."""
    return radix.leaf(world, root, levels, index)


@entry("void(int64, int64, int64)")
def free_tree(world, root, levels):
    """``radix.free_tree`` for Python."""
    radix.free_tree(world, root, levels)


@entry("int64(int64)")
def new_node(world):
    """``radix.new_node`` for Python."""
    return radix.new_node(world)


def store(world, root, levels, index, value):
    """Store a leaf entry."""
    world.nodes[leaf(world.address, root, levels, index), index & 511] = value


def free_nodes(world):
    """Nodes on the free list."""
    count, node = 0, int(world.control[0].node_free)
    while node:
        count, node = count + 1, int(world.nodes[node, 0])
    return count


@given(st.integers(1, 4), st.dictionaries(st.integers(0, 2**36 - 1), st.integers(1, 2**62), max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_tree_is_a_dictionary(levels, entries):
    world = World(SMALL)
    root = new_node(world.address)
    model = {index % (1 << 9 * levels): value for index, value in entries.items()}
    for index, value in model.items():
        store(world, root, levels, index, value)
    for index in model:
        for near in {index, index ^ 1, index ^ 512, max(index - 1, 0)}:
            near %= 1 << 9 * levels
            assert find(world.address, root, levels, near) == model.get(near, 0)
    world.close()


def test_looking_up_uses_no_memory():
    world = World(SMALL)
    root = new_node(world.address)
    assert find(world.address, root, 4, 123456789) == 0
    assert world.control[0].node_next == root + 1


def test_a_tebibyte_mapped_at_its_ends_takes_seven_nodes():
    world = World(SMALL)
    root = new_node(world.address)
    store(world, root, 4, 0, 5)
    store(world, root, 4, (1 << 36) - 1, 6)
    assert world.control[0].node_next - root == 7


def test_freed_nodes_are_used_again_and_come_zeroed():
    world = World(SMALL)
    root = new_node(world.address)
    for index in range(0, 512 * 20, 512):
        store(world, root, 3, index, index + 1)
    used = int(world.control[0].node_next)
    free_tree(world.address, root, 3)
    assert free_nodes(world) == used - root
    again = [new_node(world.address) for _ in range(used - root)]
    assert sorted(again) == list(range(root, used))
    assert not world.nodes[root:used].any()


def test_nodes_shared_with_the_host_side():
    """The host's page tables take nodes from the same pool."""
    world = World(SMALL)
    node = new_node(world.address)
    world.nodes[node] = 9
    world.free_node(node)
    assert new_node(world.address) == node and not world.nodes[node].any()


def test_an_empty_pool_traps(monkeypatch):
    world = World(SMALL)
    world.control[0].node_next = 1 << 19
    assert new_node(world.address) == 0
    assert "NODES_EXHAUSTED" in str(world.trap_error())
    with pytest.raises(Exception, match="in use"):
        world.new_node()
