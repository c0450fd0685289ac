"""Hardware profiles: all shipped ones load, are found by the names people use, and bad files are explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from simserve.errors import HardwareError
from simserve.hardware import HardwareProfile, list_hardware, load_hardware

GIB = 2**30

MINIMAL = """
name: Mine
vendor: Me
kind: gpu
memory_bytes: 1073741824
bandwidth_bytes_per_s: 1e12
peak_flops: {bfloat16: 312e12}
sources: my own measurements
confidence: high
"""


@pytest.mark.parametrize("name", list_hardware())
def test_every_profile_is_complete(name: str) -> None:
    profile = load_hardware(name)

    assert profile.name == name
    assert profile.memory_bytes % GIB == 0
    assert profile.peak_flops_for("bfloat16") > 0
    # Between a desktop CPU and anything yet built: catches a slipped exponent.
    assert 5 < profile.peak_flops_for("bfloat16") / profile.bandwidth_bytes_per_s < 1000
    assert profile.calibrated == (name not in {"CPU", "Gaudi2", "Gaudi3", "MI300X", "TPUv5e"})
    if profile.price:
        assert profile.price.date.year >= 2026
        assert profile.price.source


def test_names_and_aliases_are_unambiguous() -> None:
    words = [word for name in list_hardware() for word in (name, *load_hardware(name).aliases)]
    normal = [word.lower().replace("-", "").replace(" ", "").replace("_", "") for word in words]

    assert len(normal) == len(set(normal))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("A100", "A100-SXM4-80GB"),
        ("a100-sxm4-80gb", "A100-SXM4-80GB"),
        ("a100_80gb", "A100-SXM4-80GB"),
        ("RTX3090", "RTX3090"),
        ("rtx 3090", "RTX3090"),
        ("RTXA6000", "A6000"),
        ("H100", "H100-SXM"),
        ("TPU-v6e", "TPUv6e"),
        ("NPU", "NPU-Ascend910B"),
        ("Ascend 910B", "NPU-Ascend910B"),
    ],
)
def test_people_name_hardware_in_many_ways(said: str, meant: str) -> None:
    assert load_hardware(said).name == meant


def test_peaks_are_dense_with_float32_accumulation() -> None:
    assert load_hardware("RTX3090").peak_flops_for("bfloat16") == 71e12
    assert load_hardware("RTX4090").peak_flops_for("bfloat16") == 165.2e12
    assert load_hardware("A100").peak_flops_for("float32") == 19.5e12


def test_a_dtype_without_a_peak_names_those_with_one() -> None:
    with pytest.raises(HardwareError, match=r"A100-SXM4-80GB has no peak for fp8: choose one of bfloat16, float16"):
        load_hardware("A100").peak_flops_for("fp8")


def test_an_nvlink_bridge_joins_two_cards_and_pcie_more() -> None:
    profile = load_hardware("RTX3090")

    assert profile.link_between(2).bandwidth_bytes_per_s == 56e9
    assert profile.link_between(4).name == "PCIe 4.0 x16"
    assert load_hardware("H100").link_between(8).name == "NVLink 4"


def test_a_device_without_links_cannot_be_joined() -> None:
    with pytest.raises(HardwareError, match="CPU has no link that joins 2 devices"):
        load_hardware("CPU").link_between(2)


def test_overrides_change_the_copy_only() -> None:
    profile = load_hardware("NPU")
    changed = profile.with_overrides(memory_bytes=32 * GIB)

    assert changed.memory_bytes == 32 * GIB
    assert profile.memory_bytes == 64 * GIB
    assert profile.with_overrides() == profile


def test_overrides_are_checked() -> None:
    with pytest.raises(HardwareError, match="memory_bytes of NPU-Ascend910B must be at least 1, not 0"):
        load_hardware("NPU").with_overrides(memory_bytes=0)


def test_an_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(HardwareError, match=r"'RTX3900' is not known \(closest: RTX3090"):
        load_hardware("RTX3900")


def test_a_profile_of_ones_own_is_given_by_path(tmp_path: Path) -> None:
    profile = _load(tmp_path, MINIMAL)

    assert profile.name == "Mine"
    assert profile.peak_flops_for("bfloat16") == 312e12
    assert profile.default_efficiency.gemm_compute == 0.70
    assert profile.default_efficiency.attention_decode == 0.65


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            MINIMAL + "memory_gb: 24",
            "memory_gb is not a field of a hardware profile: remove it or correct its spelling",
        ),
        (MINIMAL + "power: {idle_w: 20}", "power.peak_w is missing"),
        (MINIMAL + "price: {usd_per_hour: 1, date: 2026-03-10}", "price.source is missing"),
        (MINIMAL + "default_efficiency: {gemm_compute: 1.2}", "default_efficiency.gemm_compute: input should be less"),
        (MINIMAL.replace("bfloat16", "bf16"), "peak_flops.bf16: input should be 'bfloat16'"),
        (MINIMAL.replace("kind: gpu", "kind: gpu: x"), "line 4: not valid YAML"),
        ("- a list", "must hold the fields of a hardware profile"),
    ],
)
def test_a_malformed_file_is_explained(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(HardwareError) as caught:
        _load(tmp_path, text)

    assert str(tmp_path / "mine.yaml") in str(caught.value)
    assert sentence in str(caught.value)


CURVES = "source: me, licence: mine, measured_with: a clock, points: 4"


def test_an_operator_derived_from_another_device_brings_that_devices_curves() -> None:
    own, derived = load_hardware("A100").calibration, load_hardware("RTX3090").calibration

    assert own is not None
    assert derived is not None
    assert derived.decode_attention.rows == own.decode_attention.rows
    assert derived.decode_attention.derived.derived_from == "A100-SXM4-80GB"
    assert derived.gemm.derived is None


@pytest.mark.parametrize(
    ("calibration", "sentence"),
    [
        (
            "{gemm: {%s, columns: 1 2, rows: {8x8: .5 1.2}}}",
            "row 8x8 holds an efficiency that is not above 0 and at most 1",
        ),
        ("{gemm: {%s, columns: 1 2, rows: {8x8: .5}}}", "row 8x8 has 1 values, but there are 2 columns"),
        ("{gemm: {%s, columns: 2 1, rows: {8x8: .5 .5}}}", "columns must grow from left to right"),
        ("{gemm: {%s, columns: 1 2, rows: {8xk: .5 .5}}}", "row 8xk must be named by 2 whole numbers joined by x"),
        (
            "{gemm: {derived_from: Gaudi2, because: x, uncertainty: .2}}",
            "Mine takes gemm from Gaudi2, which has no measured",
        ),
    ],
)
def test_a_calibration_that_cannot_be_is_explained(tmp_path: Path, calibration: str, sentence: str) -> None:
    text = calibration % CURVES if "%s" in calibration else calibration

    with pytest.raises(HardwareError, match=sentence):
        _load(tmp_path, MINIMAL + f"calibration: {text}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=r"nowhere\.yaml: cannot be read"):
        load_hardware(str(tmp_path / "nowhere.yaml"))


def _load(folder: Path, text: str) -> HardwareProfile:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return load_hardware(str(file))
