"""Formats of tag matching: struct formats and offset constants name the same bytes."""

from nicemu.abi import tag_matching as abi
from nicemu.abi.command import TAG_LIST, TagListField
from nicemu.abi.rings import CQE_APP_CTX, CQE_SRC_QP, CQE_TAG_HIGH, CQE_TAG_LOW, CQE_WQE_COUNTER
from nicemu.pyverbs.libibverbs_enums import ibv_ops_flags, ibv_ops_wr_opcode, ibv_tmh_op
from tests.abi.test_rings import offsets


def test_operation_offsets():
    names = ["WR_ID", "RECV_WR_ID", "TAG", "MASK", "OPCODE", "FLAGS", "UNEXPECTED", "HANDLE", "NUM_SGE", "STATUS"]
    assert offsets(abi.OP)[: len(names)] == [getattr(abi, f"OP_{name}") for name in names]
    assert abi.OP.size == abi.OP_HEADER_BYTES and abi.OP_STRIDE % 64 == 0


def test_header_offsets():
    message = abi.TMH.pack(1, 0x11111111, 0x2222222222222222) + abi.RVH.pack(0x3333333333333333, 0x44444444, 0x55555555)
    for at, size, byte in (
        (abi.TMH_OP, 1, 0x01),
        (1, 3, 0),
        (abi.TMH_APP_CTX, 4, 0x11),
        (abi.TMH_TAG, 8, 0x22),
        (abi.RVH_VA, 8, 0x33),
        (abi.RVH_RKEY, 4, 0x44),
        (abi.RVH_LENGTH, 4, 0x55),
    ):
        assert message[at : at + size] == bytes([byte]) * size
    assert len(message) == abi.RNDV_BYTES


def test_values_are_those_of_verbs():
    for ours, theirs in ((abi.TmhOp, ibv_tmh_op), (abi.TagOp, ibv_ops_wr_opcode), (abi.OpFlag, ibv_ops_flags)):
        assert [int(value) for value in ours] == [int(value) for value in theirs]


def test_a_tag_list_has_a_word_per_field():
    assert TAG_LIST.size == 8 * len(TagListField)


def test_where_a_completion_has_the_header():
    assert (CQE_APP_CTX, CQE_TAG_HIGH) == (CQE_SRC_QP, CQE_TAG_LOW + 4) and CQE_TAG_LOW == CQE_WQE_COUNTER + 4
