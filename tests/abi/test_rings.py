"""Ring formats: struct formats and offset constants name the same bytes; owner words; entry packing."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.abi import command, rings
from nicemu.abi.command import Command, QpField, mtt_entry
from nicemu.abi.rings import Doorbell, doorbell_offset, owner, power_of_two, recv_stride, send_stride

SIZES = {"I": 4, "Q": 8, "q": 8}


def offsets(format_: struct.Struct) -> list[int]:
    """Byte offset of each field of a format."""
    found, at = [], 0
    text = format_.format.lstrip("<")
    fields, number = [], ""
    for letter in text:
        if letter.isdigit():
            number += letter
        else:
            fields += [letter] * int(number or 1)
            number = ""
    for letter in fields:
        assert at % SIZES[letter] == 0, "fields are naturally aligned"
        found.append(at)
        at += SIZES[letter]
    assert at == format_.size
    return found


SEND_FIELDS = [rings.SEND_WR_ID, rings.SEND_OPCODE, rings.SEND_FLAGS, rings.SEND_NUM_SGE, rings.SEND_IMM,
               rings.SEND_REMOTE_ADDR, rings.SEND_RKEY, rings.SEND_INLINE_LENGTH, rings.SEND_COMPARE_ADD,
               rings.SEND_SWAP, rings.SEND_REMOTE_QPN, rings.SEND_REMOTE_QKEY]  # fmt: skip
CQE_FIELDS = [rings.CQE_WR_ID, rings.CQE_QP_NUM, rings.CQE_SRC_QP, rings.CQE_BYTE_LEN, rings.CQE_IMM,
              rings.CQE_STATUS, rings.CQE_OPCODE, rings.CQE_WC_FLAGS, rings.CQE_VENDOR_ERR, rings.CQE_TIMESTAMP,
              rings.CQE_WQE_COUNTER, rings.CQE_PKEY_INDEX]  # fmt: skip


def test_send_wqe_offsets():
    assert offsets(rings.SEND_WQE) == SEND_FIELDS
    assert rings.SEND_WQE.size == rings.SEND_HEADER_BYTES


def test_receive_wqe_and_sge_offsets():
    assert offsets(rings.RECV_WQE)[:2] == [rings.RECV_WR_ID, rings.RECV_NUM_SGE]
    assert rings.RECV_WQE.size == rings.RECV_HEADER_BYTES
    assert offsets(rings.SGE) == [rings.SGE_ADDR, rings.SGE_LENGTH, rings.SGE_LKEY]
    assert rings.SGE.size == rings.SGE_BYTES


def test_cqe_offsets():
    found = offsets(rings.CQE)
    assert found[:12] == CQE_FIELDS and found[-1] == rings.CQE_OWNER
    assert rings.CQE.size == rings.CQE_BYTES


def test_eqe_offsets():
    found = offsets(rings.EQE)
    assert found[:3] == [rings.EQE_TYPE, rings.EQE_SUBTYPE, rings.EQE_DATA]
    assert found[-1] == rings.EQE_OWNER and rings.EQE.size == rings.EQE_BYTES


def test_command_offsets():
    found = offsets(command.COMMAND)
    assert (found[1], found[2], found[-1]) == (command.COMMAND_STATUS, command.COMMAND_PARAMS, command.COMMAND_MAILBOX)
    assert command.COMMAND.size == command.COMMAND_BYTES
    assert len(found) - 3 == 14


def test_a_qp_context_has_a_word_per_field():
    assert command.QP_CONTEXT.size == 8 * len(QpField) and list(QpField) == list(range(len(QpField)))


def test_the_owner_word_comes_last_in_a_record():
    """Body before owner word: a reader that sees the owner sees the record."""
    assert max(offsets(rings.CQE)) == rings.CQE_OWNER and max(offsets(rings.EQE)) == rings.EQE_OWNER


@pytest.mark.parametrize("slots", [1, 2, 64, 4096])
def test_owner_alternates_each_pass_and_a_zeroed_ring_is_empty(slots):
    assert owner(0, slots) == 1 and owner(slots - 1, slots) == 1
    assert owner(slots, slots) == 0 and owner(2 * slots, slots) == 1
    for counter in range(0, 4 * slots, max(slots // 2, 1)):
        assert owner(counter, slots) != owner(counter + slots, slots)


@given(st.integers(0, 1 << 20))
def test_power_of_two_is_the_least_one_not_below(count):
    found = power_of_two(count)
    assert found & (found - 1) == 0 and found >= max(count, 1) and (found == 1 or found // 2 < count)


@given(st.integers(0, 64), st.integers(0, 4096))
def test_a_slot_holds_its_sges_or_its_inline_data(sges, inline):
    stride = send_stride(sges, inline)
    assert stride & (stride - 1) == 0
    assert stride - rings.SEND_HEADER_BYTES >= max(16 * sges, inline)
    assert recv_stride(sges) - rings.RECV_HEADER_BYTES >= 16 * sges


@given(st.sampled_from(Doorbell), st.integers(0, (1 << 21) - 1))
def test_doorbell_offsets_are_distinct_and_decode(bank, number):
    offset = doorbell_offset(bank, number)
    assert (offset >> 24, (offset & 0xFFFFFF) >> 3) == (bank, number) and offset % 8 == 0


@given(st.integers(0, (1 << 30) - 1), st.booleans(), st.integers(0, (1 << 31) - 1))
def test_mtt_entries_unpack_to_what_went_in(frame, write, stamp):
    packed = mtt_entry(frame, write, stamp)
    assert 0 < packed < 2**63 and packed & command.MTT_READ
    assert bool(packed & command.MTT_WRITE) == write
    assert (packed >> command.MTT_FRAME_SHIFT) & ((1 << command.MTT_FRAME_BITS) - 1) == frame
    assert packed >> command.MTT_STAMP_SHIFT == stamp


def test_command_numbers_are_the_ones_the_device_decodes():
    from nicemu.nic import command as device

    assert [device.NOP, device.UPDATE_MTT, device.ZAP_MTT, device.PAGE_FAULT_RESUME] == [
        Command.NOP, Command.UPDATE_MTT, Command.ZAP_MTT, Command.PAGE_FAULT_RESUME]  # fmt: skip
