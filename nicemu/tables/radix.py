"""Radix trees of 512-entry nodes from one pool: page tables of the host and MTTs of the NIC.

A tree is (root node, levels). Index bits 9 per level, leaf entries any int64, 0 is absent. Inner entries are node
numbers. Memory is used only for what is mapped.
"""

from nicemu._jit import jit, load64, store64
from nicemu.tables.records import Trap
from nicemu.tables.rows import control, node_base
from nicemu.tables.trap import trap

MAX_NODES = 1 << 19


@jit
def entry_address(world, node, index):
    """Host address of one entry."""
    return node_base(world) + (node * 512 + (index & 511)) * 8


@jit
def new_node(world):
    """A zeroed node, or 0 with a trap."""
    c = control(world, 0)
    node = c.node_free
    if node != 0:
        c.node_free = load64(entry_address(world, node, 0))
        for i in range(512):
            store64(entry_address(world, node, i), 0)
        return node
    node = c.node_next
    if node >= MAX_NODES:
        trap(world, Trap.NODES_EXHAUSTED, node)
        return 0
    c.node_next = node + 1
    return node


@jit
def leaf_or_none(world, root, levels, index):
    """The leaf node that holds ``index``, or 0."""
    node = root
    for level in range(levels - 1, 0, -1):
        node = load64(entry_address(world, node, index >> (9 * level)))
        if node == 0:
            return 0
    return node


@jit
def next_leaf(world, root, levels, index):
    """The first index from ``index`` on that has a leaf node; ``512 ** levels`` if none does."""
    end = 1 << (9 * levels)
    while index < end:
        node = root
        level = levels - 1
        while level > 0:
            node = load64(entry_address(world, node, index >> (9 * level)))
            if node == 0:
                break
            level -= 1
        if level == 0:
            return index
        index = ((index >> (9 * level)) + 1) << (9 * level)
    return end


@jit
def find(world, root, levels, index):
    """The leaf entry of ``index``, 0 if absent."""
    node = leaf_or_none(world, root, levels, index)
    return 0 if node == 0 else load64(entry_address(world, node, index))


@jit
def leaf(world, root, levels, index):
    """The leaf node that holds ``index``, made if absent; 0 only with a trap."""
    node = root
    for level in range(levels - 1, 0, -1):
        at = entry_address(world, node, index >> (9 * level))
        child = load64(at)
        if child == 0:
            child = new_node(world)
            if child == 0:
                return 0
            store64(at, child)
        node = child
    return node


@jit
def free_tree(world, node, levels):
    """Give back a tree's nodes (four levels at most)."""
    c = control(world, 0)
    if levels > 1:
        for i in range(512):
            child = load64(entry_address(world, node, i))
            if child != 0:
                free_tree(world, child, levels - 1)
    store64(entry_address(world, node, 0), c.node_free)
    c.node_free = node
