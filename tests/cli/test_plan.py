"""``simserve plan``: the question users bring."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from simserve.cli.main import main
from simserve.hardware import load_hardware

MODEL = ["--model", "meta-llama/Llama-3.1-8B-Instruct"]
SHORT = ["--input-len", "200", "--output-len", "50", "--jobs", "1"]


def planned(argv: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    assert main(["plan", *MODEL, *SHORT, *argv, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_cheapest_that_holds_comes_first_and_its_command_gives_its_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = planned(["--users", "60", "--slo", "ttft:p99=1s", "tpot:p99=40ms", "--hardware", "A100,L40S,L4"], capsys)
    costs = [offer["usd_per_hour"] for offer in plan["offers"]]
    assert costs == sorted(costs)
    assert plan["answer"][0].startswith(("1 x ", "2 x ", "3 x ", "4 x "))
    for offer in plan["offers"][:2]:
        result = offer["result"]
        assert result["p99_ttft_ms"] <= 1000
        assert result["p99_tpot_ms"] <= 40
        assert main([*shlex.split(offer["simulate"])[1:], "--json"]) == 0
        again = json.loads(capsys.readouterr().out)
        assert [again[key] for key in ("p99_ttft_ms", "p99_tpot_ms_high")] == [
            result[key] for key in ("p99_ttft_ms", "p99_tpot_ms_high")
        ]
        assert offer["vllm"].startswith("vllm serve meta-llama/Llama-3.1-8B-Instruct ")


def test_one_replica_less_would_miss_it(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(["--users", "100", "--slo", "tpot:p99=70ms", "--hardware", "L4", "-tp", "1"], capsys)
    (offer,) = plan["offers"]
    assert offer["replicas"] > 1
    words = shlex.split(offer["simulate"])[1:]
    words[words.index("--replicas") + 1] = str(offer["replicas"] - 1)
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["p99_tpot_ms"] > 70


def test_power_is_that_of_all_devices_and_an_answers_tokens_share_it(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(["--users", "100", "--slo", "tpot:p99=70ms", "--hardware", "L4", "-tp", "1"], capsys)
    (offer,) = plan["offers"]
    power = load_hardware("L4").power
    assert power is not None
    assert 0 < offer["watts"] < offer["devices"] * power.peak_w
    assert offer["watts"] > (offer["devices"] - 1) * power.peak_w * 0.12, "idle power of the others is counted, too"
    assert offer["watts"] == pytest.approx(offer["joules_per_output_token"] * offer["result"]["output_throughput"])


def test_a_budget_and_prices_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--request-rate", "2", "--slo", "tpot:p99=40ms", "--hardware", "A100,L40S", "-tp", "1"]
    plan = planned([*asked, "--price", "A100=0.5", "--budget", "1"], capsys)
    assert [offer["hardware"] for offer in plan["offers"]] == ["A100-SXM4-80GB"]
    assert plan["offers"][0]["usd_per_hour"] == 0.5
    assert "the budget is 1.00 USD/h" in plan["not_simulated"][0]["because"]


class TestTheImpossible:
    """Answered with the bound and the nearest that can be had."""

    def test_faster_than_physics(self, capsys: pytest.CaptureFixture[str]) -> None:
        asked = ["--users", "1", "--slo", "tpot:p99=0.5ms", "--hardware", "A100,H200"]
        first, second, third = planned(asked, capsys, code=1)["answer"][:3]
        assert first == "Nothing that may be used carries 1 users within tpot:p99=0.5ms."
        assert second.startswith("Physics allows ")
        assert third.startswith("Nearest comes 8 x H200: tpot:p99=0.5ms is ")

    def test_a_model_that_fits_nowhere(self, capsys: pytest.CaptureFixture[str]) -> None:
        argv = ["plan", "--model", "meta-llama/Llama-3.1-70B-Instruct", "--users", "1", "--slo", "ttft:p99=1s"]
        assert main([*argv, "--hardware", "L4", "-tp", "1,2"]) == 1
        assert "not L4, 2 x L4: the model does not fit its memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "how much is asked?"),
        (["--users", "0"], "0 users ask nothing"),
        (["--users", "1", "--request-rate", "1"], "give either --users or a rate"),
        (["--request-rate", "-1"], "a rate of -1 requests per second"),
        (["--users", "1", "--hardware", "A100X"], "A100X"),
        (["--users", "1", "--price", "A100"], "--price is NAME=USD per hour"),
        (["--users", "1", "--budget", "0"], "--budget is USD per hour"),
        (["--users", "1", "--max-num-seqs", "1,2"], "--max-num-seqs takes one value here"),
    ],
)
def test_bad_input_is_one_sentence(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *MODEL, "--slo", "ttft:p99=1s", *argv]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
