"""Policies are chosen by name or from a file, presets fill in what is not said, and no option is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from simserve.config import PRESETS, EngineOptions
from simserve.errors import ConfigError, RequestError
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.scheduling import POLICIES, Request, SchedulerLimits, VllmV1Priority
from simserve.simulation import EngineSetup, prepare
from simserve.simulation.policies import policy_named

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_policy.py"


def setup(**options: object) -> EngineSetup:
    return prepare(load_model("facebook/opt-125m"), load_hardware("A100"), EngineOptions(**options))  # type: ignore[arg-type]


class TestNames:
    @pytest.mark.parametrize("name", sorted(POLICIES))
    def test_each_name_is_a_policy_that_can_be_built_by_default(self, name: str) -> None:
        assert type(setup(policy=name).new_scheduler()) is POLICIES[name]

    def test_vllm_v1_is_the_default(self) -> None:
        built = setup()
        assert built.policy is POLICIES["vllm-v1"]
        assert (built.async_scheduling, built.limits.prefix_caching, built.limits.reserve_full_prompt) == (True,) * 3

    def test_priority_is_an_option_of_vllm_v1(self) -> None:
        assert setup(scheduling_policy="priority").policy is VllmV1Priority


class TestOwnPolicy:
    def test_the_example_serves_the_shortest_prompt_first(self) -> None:
        scheduler = policy_named(f"{EXAMPLE}:MyPolicy")(SchedulerLimits(num_blocks=100, max_num_seqs=1))
        for name, tokens in (("long", 30), ("short", 5), ("middle", 9)):
            scheduler.add(Request(name, tokens, 1))
        order = []
        while scheduler.has_requests:
            order += [request.request_id for request in scheduler.complete(scheduler.schedule())]
        assert order == ["short", "middle", "long"]

    def test_it_honours_the_options_of_what_it_derives_from(self) -> None:
        assert setup(policy=f"{EXAMPLE}:MyPolicy", watermark=0.1).limits.watermark == 0.1

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("no-such-policy", "unknown policy 'no-such-policy'; choose one of vllm-v1, vllm-v0"),
            ("nowhere.py:MyPolicy", "cannot read the policy's file nowhere.py"),
            (f"{EXAMPLE}:Nobody", "has no class Nobody that derives from simserve.scheduling.Scheduler"),
            (f"{EXAMPLE}:prompt_length", "has no class prompt_length"),
            (f"{EXAMPLE}:SchedulerLimits", "has no class SchedulerLimits"),
        ],
    )
    def test_what_is_no_policy_is_told_in_a_sentence(self, name: str, sentence: str) -> None:
        with pytest.raises(ConfigError, match=r"\A[^\n]*\Z") as caught:
            policy_named(name)
        assert sentence in str(caught.value)

    def test_a_file_that_fails_names_its_error(self, tmp_path: Path) -> None:
        path = tmp_path / "broken.py"
        path.write_text("1 / 0")
        with pytest.raises(ConfigError, match=r"broken\.py cannot be run: ZeroDivisionError"):
            policy_named(f"{path}:MyPolicy")

    def test_a_policy_without_a_plan_says_what_is_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.py"
        path.write_text("from simserve.scheduling import Scheduler\nclass Empty(Scheduler): pass\n")
        with pytest.raises(ConfigError, match="give it a method plan"):
            policy_named(f"{path}:Empty")


class TestPresets:
    @pytest.mark.parametrize("preset", sorted(PRESETS))
    def test_each_builds_an_engine_and_is_what_it_says(self, preset: str) -> None:
        options = setup(engine_preset=preset).options
        assert {name: getattr(options, name) for name in PRESETS[preset]} == PRESETS[preset]

    def test_what_the_user_says_comes_first(self) -> None:
        assert setup(engine_preset="vllm-0.11", async_scheduling=True).async_scheduling

    def test_older_engines_spend_more_time_on_each_request(self) -> None:
        steps_s = [setup(engine_preset=preset).timer.step_s(10, 5000, [], 10) for preset in ("vllm-0.6", "vllm-0.5")]
        assert steps_s[1] - steps_s[0] == pytest.approx(10 * (420 - 42) * 1e-6)

        said = setup(engine_preset="vllm-0.5", host_step_us=0.0, host_request_us=42.0)
        assert steps_s[0] - said.timer.step_s(10, 5000, [], 10) == pytest.approx(800e-6)

    def test_a_preset_and_another_policy_contradict(self) -> None:
        with pytest.raises(ConfigError, match=r"vllm-0\.6 has policy vllm-v0 and not sarathi"):
            setup(engine_preset="vllm-0.6", policy="sarathi")


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"policy": "vllm-v0", "async_scheduling": True}, "vllm-v0 cannot have --async-scheduling"),
            ({"policy": "vllm-v0", "enable_chunked_prefill": True}, "cannot have --enable-chunked-prefill"),
            ({"policy": "sarathi", "enable_chunked_prefill": False}, "cannot have --no-enable-chunked-prefill"),
            ({"policy": "orca", "enable_prefix_caching": True}, "orca cannot have --enable-prefix-caching"),
            ({"policy": "static", "watermark": 0.1}, "static cannot have --watermark 0.1"),
            ({"policy": "sglang", "reserve_full_prompt": True}, "cannot have --scheduler-reserve-full-isl"),
            ({"policy": "sglang", "scheduling_policy": "priority"}, "cannot have --scheduling-policy priority"),
            ({"policy": f"{EXAMPLE}:MyPolicy", "scheduling_policy": "priority"}, "--scheduling-policy priority"),
            ({"schedule_policy": "lpm"}, "vllm-v1 cannot have --schedule-policy lpm"),
            ({"chunked_prefill_size": 512}, "vllm-v1 cannot have --chunked-prefill-size 512"),
            ({"policy": "sglang", "chunked_prefill_size": 5, "max_num_batched_tokens": 6}, "mean the same here"),
            ({"policy": "sglang", "chunked_prefill_size": 5, "enable_chunked_prefill": False}, "contradict"),
            (
                {"policy": "vllm-v0", "max_model_len": 2000, "max_num_batched_tokens": 1000},
                "computes a prompt in one step",
            ),
        ],
    )
    def test_an_option_that_a_policy_cannot_have_is_refused(self, options: dict[str, object], sentence: str) -> None:
        with pytest.raises(ConfigError) as caught:
            setup(**options)
        assert sentence in str(caught.value)

    def test_what_a_policy_does_anyway_may_be_said(self) -> None:
        assert not setup(policy="vllm-v0", async_scheduling=False).async_scheduling

    @pytest.mark.parametrize(
        ("options", "budget"),
        [
            ({"policy": "sarathi"}, 512),
            ({"policy": "sglang"}, 8192),
            ({"policy": "sglang", "chunked_prefill_size": 4096}, 4096),
            ({"policy": "sglang", "enable_chunked_prefill": False}, 16384),
            ({"policy": "vllm-v0"}, 2048),
            ({"policy": "sglang", "max_num_batched_tokens": 100}, 100),
        ],
    )
    def test_each_policy_has_the_token_budget_of_its_engine(self, options: dict[str, object], budget: int) -> None:
        assert setup(**options).limits.max_num_batched_tokens == budget

    def test_a_prompt_that_a_step_cannot_hold_is_refused_with_what_to_do(self) -> None:
        scheduler = POLICIES["vllm-v0"](SchedulerLimits(num_blocks=100, max_num_batched_tokens=50))
        with pytest.raises(RequestError, match="raise --max-model-len and --max-num-batched-tokens"):
            scheduler.add(Request("long", 60, 1))


def test_static_batches_count_ended_sequences_as_padding() -> None:
    scheduler = POLICIES["static"](SchedulerLimits(num_blocks=100, max_num_seqs=2, prefix_caching=False))
    for name, inputs, outputs in (("A", 10, 2), ("B", 6, 4), ("C", 5, 1)):
        scheduler.add(Request(name, inputs, outputs))
    rows = []
    while scheduler.has_requests:
        plan = scheduler.schedule()
        rows.append(([c.tokens for c in plan.chunks], plan.num_decodes, plan.padding, plan.decode_context_tokens))
        scheduler.complete(plan)
    assert rows == [([10, 10], 0, 0, 0), ([], 2, 0, 20), ([], 2, 1, 22), ([], 2, 1, 24), ([5], 0, 0, 0)]
    assert scheduler.blocks.used_blocks == 0
