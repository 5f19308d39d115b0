"""`fabric:` and `impairments:` of a lab file: what they accept, and one line for whatever is wrong."""

from pathlib import Path
from typing import get_args

import pytest

from nicemu.config import ConfigError, load_config
from nicemu.config.fabric_profile import FieldName, Impairment, Operation
from nicemu.tables.records import ImpairKind, PacketField
from nicemu.wire.opcode import RcOpcode, Transport


def message(tmp_path: Path, text: str) -> str:
    """The error that a file with `text` gives, without the folder it lies in and its line."""
    file = tmp_path / "lab.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert "\n" not in str(caught.value)
    return str(caught.value).partition("lab.yaml:1: ")[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("impairments: {kind: loss}", "field impairments: expected a list, each a mapping of fields, given"),
        ("impairments: [{}]", "field impairments.0.kind: expected one of loss, reorder, duplicate"),
        ("impairments: [{kind: los}]", "field impairments.0.kind: expected one of loss, reorder, duplicate"),
        ("impairments: [{kind: loss, probabilty: 1}]", "field impairments.0.probabilty: expected probability, given"),
        ("impairments: [{kind: loss, probability: 2}]", "field impairments.0.probability: expected float 0..1 or null"),
        ("impairments: [{kind: loss, packets: [0]}]", "field impairments.0.packets.0: expected int >= 1, given 0"),
        (
            "impairments: [{kind: loss, operations: [X]}]",
            "field impairments.0.operations.0: expected one of SEND_FIRST",
        ),
        ("impairments: [{kind: loss, nics: [1]}]", "field impairments: expected nics 0..0 in each item"),
        ("impairments: [{kind: loss, delay_ns: 5}]", "field impairments.0.delay_ns: expected only for reorder"),
        ("impairments: [{kind: loss, from_ns: 5, until_ns: 5}]", "field impairments.0.until_ns: expected more than"),
        ("impairments: [{kind: reorder}]", "field impairments.0.delay_ns: expected int >= 1 for reorder"),
        ("impairments: [{kind: rewrite}]", "field impairments.0.field: expected one of transport, operation, psn"),
        ("impairments: [{kind: rewrite, field: psn}]", "field impairments.0.value: expected this or add, one of them"),
        ("fabric: {swich: {}}", "field fabric.swich: expected switch, given an unknown field"),
        ("fabric: {links: [{rate: 4}]}", "field fabric.links.0.rate: expected rate_gbps, given an unknown field"),
        ("fabric: {links: [{mtu: 40}]}", "field fabric.links.0.mtu: expected int 68..65535 or null, given 40"),
        ("fabric: {links: [{nics: [7]}]}", "field fabric: expected nics 0..0 in each item"),
        ("fabric: {switch: {latency_ns: -1}}", "field fabric.switch.latency_ns: expected int >= 0, given -1"),
        ("fabric: {switch: {queue_bytes: 5, pause: {}}}", "field fabric.switch.queue_bytes: expected null with pause"),
        ("fabric: {switch: {ecn: {kmin_bytes: 9, kmax_bytes: 3}}}", "field fabric.switch.ecn.kmax_bytes: expected at"),
        ("fabric: {switch: {pause: {xon_bytes: 200000}}}", "field fabric.switch.pause.xon_bytes: expected less than"),
    ],
)
def test_wrong_input_gets_one_line_that_says_where_and_what(tmp_path: Path, text: str, expected: str) -> None:
    assert message(tmp_path, text).startswith(expected)


def test_the_names_are_those_of_the_wire_and_of_the_tables() -> None:
    assert set(get_args(Operation)) == {operation.name for operation in RcOpcode}
    assert set(get_args(FieldName)) == {field.name.lower() for field in PacketField}
    kinds = get_args(Impairment.model_fields["kind"].annotation)
    assert [kind.upper() for kind in kinds] == [kind.name for kind in ImpairKind]
    transports = get_args(get_args(Impairment.model_fields["transport"].annotation)[0])
    assert set(transports) < {transport.name for transport in Transport}


def test_a_partition_cuts_both_directions_by_default_others_only_the_way_out() -> None:
    assert Impairment(kind="partition").sides == ("out", "in")
    assert Impairment(kind="loss").sides == ("out",)
    assert Impairment(kind="loss", direction="both").sides == ("out", "in")


def test_an_impairment_without_a_name_is_called_by_its_kind() -> None:
    assert Impairment(kind="loss").title == "loss"
    assert Impairment(kind="loss", name="wifi").title == "wifi"


def test_the_shipped_lossy_lab_has_one_of_each_kind() -> None:
    kinds = {rule.kind for rule in load_config("lossy").impairments}
    assert kinds == {kind.name.lower() for kind in ImpairKind}
