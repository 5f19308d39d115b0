"""Configuration files: defaults, overrides, and one line for whatever is wrong."""

from pathlib import Path

import pytest

from nicemu.config import Config, ConfigError, HostProfile, NicProfile, load_config, paths
from nicemu.config.host_profile import HostCosts
from nicemu.config.nic_profile import NicCosts


def message(tmp_path: Path, text: str, **overrides: object) -> str:
    """The error that a file with `text` gives, without the folder it lies in."""
    file = tmp_path / "lab.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_the_shipped_default_profiles_are_the_defaults_of_the_models() -> None:
    config = load_config()
    assert config.nic.costs == NicCosts()
    assert config.nic.model_dump(exclude={"description", "source"}) == NicProfile().model_dump(
        exclude={"description", "source"}
    )
    assert config.host.costs == HostCosts()
    assert config.host.ram_pages == HostProfile().ram_pages


def test_the_lab_file_that_shows_every_default_shows_the_defaults() -> None:
    config = load_config("default")
    assert config == load_config()
    assert config.model_fields_set == set(Config.model_fields)


@pytest.mark.parametrize("name", paths.shipped_names("configs/lab", ".yaml"))
def test_every_shipped_lab_loads(name: str) -> None:
    assert load_config(name).model_dump()


@pytest.mark.parametrize("kind", ["nic", "host"])
def test_every_shipped_profile_loads_and_says_its_name_and_source(kind: str) -> None:
    for name in paths.shipped_names(f"configs/{kind}", ".yaml"):
        profile = getattr(load_config(None, {kind: name}), kind)
        assert profile.name == name
        assert profile.source


def test_a_profile_in_a_file_may_be_like_another() -> None:
    own = {"name", "description", "source", "ack_timeout_floor_ns"}
    profiles = [load_config(None, {"nic": name}).nic.model_dump() for name in ("connectx4", "connectib")]
    assert {name for name in profiles[0] if profiles[0][name] != profiles[1][name]} == own


def test_a_host_may_be_like_a_profile_too() -> None:
    host = load_config(None, {"host": {"like": "npf", "spread": None}}).host
    assert host.spread is None and host.costs == load_config(None, {"host": "npf"}).host.costs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("like: connectib\nmax_qpp: 5\n", "odd.yaml:2: field max_qpp: expected max_qp"),
        ("like: nosuch\n", "expected a profile ("),
        ("like: odd.yaml\n", "expected a profile that is not like itself"),
    ],
)
def test_what_is_wrong_with_such_a_profile_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"nic": str(file)})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_default_stages_add_up_to_the_published_page_fault() -> None:
    nic, host = load_config().nic.costs, load_config().host.costs
    total = nic.fault_detect_ns + nic.interrupt_ns + host.fault_ns + host.driver_fault_ns
    command_ns = nic.doorbell_ns + nic.command_ns + nic.interrupt_ns + host.irq_ns
    total += command_ns + nic.mtt_update_ns + nic.doorbell_ns + nic.command_ns + nic.resume_ns
    assert total == pytest.approx(219_600, rel=0.02)


def test_a_configuration_is_frozen_and_hashable() -> None:
    config = load_config()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 2  # type: ignore[misc]
    assert hash(config) == hash(load_config())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: x", "lab.yaml:1: field seed: expected int >= 0, given 'x'"),
        ("seed: true", "lab.yaml:1: field seed: expected int >= 0, given True"),
        ("nics: 257", "lab.yaml:1: field nics: expected int 1..256, given 257"),
        ("\nnic:\n  costs:\n    zap_ns: x", "lab.yaml:4: field nic.costs.zap_ns: expected int >= 0, given 'x'"),
        ("nic: {max_mtu: 9}", "lab.yaml:1: field nic.max_mtu: expected one of 256, 512, 1024, 2048, 4096, given 9"),
        ("sanitizer: 1", "lab.yaml:1: field sanitizer: expected bool, given 1"),
        ("pcap: no/such/file", "lab.yaml:1: field pcap: expected a file in a folder that exists, given 'no/such/"),
        ("trace: 3", "lab.yaml:1: field trace: expected a path or null, given 3"),
        ("mutants: 3", "lab.yaml:1: field mutants: expected a list, each one of zap_without_flush"),
        ("mutants:\n- no", "lab.yaml:2: field mutants.0: expected one of zap_without_flush"),
        ("nic: {iotlb: {sets: 3}}", "lab.yaml:1: field nic.iotlb.sets: expected a power of two, given 3"),
        ("nic: {vendor_id: 0x8086}", "lab.yaml:1: field nic.vendor_id: expected an id without"),
        ("sed: 1", "lab.yaml:1: field sed: expected seed, given an unknown field"),
        ("nic: nosuch", "lab.yaml:1: field nic: expected a profile (connectib"),
        ("firmware: nosuch", "lab.yaml:1: field firmware: expected a Python file that exists or one of the shipped"),
        ("seed: 1\nseed: 2", "lab.yaml:2: field seed: expected once, given twice"),
        ("1: 2", "lab.yaml:1: expected the name of a field, given '1'"),
        ("? [1]\n: 2", "lab.yaml:1: expected the name of a field, given a sequence"),
        ("- 1", "lab.yaml:1: expected a mapping of fields, given [1]"),
        ("a: [", "lab.yaml:1: expected YAML: "),
        ("&a [*a]", "lab.yaml: expected YAML: "),
        ("d: 2020-13-45", "lab.yaml: expected YAML: "),
        ("subscriber: chain", "lab.yaml:1: field subscriber: expected auto or interval under discipline v6.12"),
    ],
)
def test_wrong_input_gets_one_line_that_says_where_and_what(tmp_path: Path, text: str, expected: str) -> None:
    assert message(tmp_path, text).startswith(expected)


def test_an_error_in_a_profile_names_the_profile(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\ncosts:\n  packet_ns: -1\n")
    text = message(tmp_path, "nic: ./mine.yaml")
    assert text == "mine.yaml:3: field costs.packet_ns: expected int >= 0, given -1"


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    (tmp_path / "lab.yaml").write_text("nic: mine.yaml\ntrace: out.log\n")
    monkeypatch.chdir("/")
    config = load_config(tmp_path / "lab.yaml")
    assert config.nic.name == "mine"
    assert config.trace == tmp_path / "out.log"


def test_overrides_replace_fields_and_none_means_not_given(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("seed: 4\nmemory: model\n")
    config = load_config(tmp_path / "lab.yaml", {"seed": 5, "memory": None, "nic": "connectib"})
    assert (config.seed, config.memory) == (5, "model")


def test_a_wrong_override_names_the_command_line(tmp_path: Path) -> None:
    assert message(tmp_path, "seed: 4", seed=-1) == "command line: field seed: expected int >= 0, given -1"
    text = message(tmp_path, "discipline: v3.6", subscriber="interval")
    assert text.startswith("command line: field subscriber: expected auto or chain under discipline v3.6")


@pytest.mark.parametrize(
    ("discipline", "subscriber"),
    [("v3.6", "chain"), ("v3.6+srcu", "chain"), ("v3.7-seed", "chain"), ("v3.7", "chain"), ("v6.12", "interval")],
)
def test_auto_subscribes_as_drivers_of_that_kernel_did(discipline: str, subscriber: str) -> None:
    assert load_config(None, {"discipline": discipline}).notifier_subscriber == subscriber


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"exists or a shipped lab \(.*reclaim.*\), given 'no'"):
        load_config("no")
