"""Speculative decoding in simulated time: what it costs, what it brings, and laws that no run may break."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import load_hardware
from simserve.latency.verification import VerifyingStepTimer
from simserve.metrics.records import FINISHED
from simserve.models import load_model
from simserve.simulation import EngineSetup, SimulationResult, prepare, simulate
from simserve.workload import Workload
from simulation.cluster.clusters import Ran, spec
from simulation.cluster.test_laws import workloads

MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")


def config(tokens: int, acceptance: Any, method: str = "ngram", **more: Any) -> str:
    return json.dumps({"method": method, "num_speculative_tokens": tokens, "acceptance": acceptance, **more})


DRAFT = config(3, [0.8, 0.6, 0.4], "draft_model", model="meta-llama/Llama-3.2-1B-Instruct")


def run(workload: Workload, **options: Any) -> SimulationResult:
    return simulate(workload, MODEL, HARDWARE, EngineOptions(**options))


def setup(**options: Any) -> EngineSetup:
    return prepare(MODEL, HARDWARE, EngineOptions(**options))


def alone(input_tokens: int, output_tokens: int) -> Workload:
    return Workload("alone", np.zeros(1), np.array([input_tokens]), np.array([output_tokens]))


@pytest.mark.parametrize("tokens", [1, 3, 5])
@pytest.mark.parametrize("output_tokens", [1, 2, 10, 97])
def test_if_all_drafts_are_right_an_answer_takes_as_many_steps_as_drafts_fit(tokens: int, output_tokens: int) -> None:
    done = run(alone(100, output_tokens), speculative_config=config(tokens, 1.0), async_scheduling=False)
    assert done.totals.steps == 1 + math.ceil((output_tokens - 1) / (tokens + 1))
    assert done.records.output_tokens.tolist() == [output_tokens]


def test_if_none_is_right_it_takes_as_many_steps_as_without() -> None:
    plain = run(alone(100, 97))
    done = run(alone(100, 97), speculative_config=config(3, 0.0))
    assert done.totals.steps == plain.totals.steps == 97
    assert done.figures["spec_mean_acceptance_length"] == 1.0


def test_tokens_that_come_together_are_no_time_apart() -> None:
    done = run(alone(100, 9), speculative_config=config(3, 1.0), async_scheduling=False)
    gaps = done.records.gaps
    together = gaps.gap_s == 0.0
    assert gaps.count[together].sum() == 6
    assert gaps.count[~together].sum() == 2
    assert done.figures["spec_drafts"] == 2


def test_one_row_for_each_decode_and_no_drafter_is_a_plain_step() -> None:
    verifier, plain = setup(speculative_config=config(3, 0.5)).timer, setup().timer
    assert isinstance(verifier, VerifyingStepTimer)
    for decodes, context, chunks in ((4, 4000, ()), (1, 10, ()), (32, 9999, ((256, 0),)), (2, 64, ((16, 5), (700, 9)))):
        plain_s = plain.step_s(decodes, context, chunks, decodes + len(chunks))
        assert verifier.verify_s(decodes, decodes, context, chunks, len(chunks)) == pytest.approx(plain_s)


def test_a_step_with_drafts_is_never_faster_than_its_products_and_pairs_at_peak() -> None:
    verifier = setup(speculative_config=config(7, 0.5)).timer
    assert isinstance(verifier, VerifyingStepTimer)
    peak = HARDWARE.peak_flops_for("bfloat16")
    weights = 2 * (MODEL.num_parameters - MODEL.vocab_size * MODEL.hidden_size)
    for decodes, each in ((1, 8), (64, 8), (256, 8), (256, 2)):
        context = decodes * 2000
        rows = decodes * each
        seconds = verifier.verify_s(decodes, rows, context, (), 0)
        attention = MODEL.attention_decode_flops(1) * (each * context + rows * (each + 1) / 2)
        assert seconds >= (weights * rows + attention) / peak
        moved = weights + MODEL.kv_bytes_per_token("bfloat16") * (context + rows)
        assert seconds >= moved / HARDWARE.bandwidth_bytes_per_s
        if decodes > 1:  # a product with one row was measured to take longer than with eight, on this device
            assert seconds >= verifier.verify_s(decodes, decodes, context, (), 0)


def test_a_drafter_takes_time_weights_and_kv() -> None:
    plain, ngram, eagle, draft = (
        setup(**options)
        for options in (
            {},
            {"speculative_config": config(3, 0.5)},
            {"speculative_config": config(3, 0.5, "eagle")},
            {"speculative_config": DRAFT},
        )
    )
    assert ngram.limits.num_blocks == plain.limits.num_blocks > eagle.limits.num_blocks > draft.limits.num_blocks
    small = load_model("meta-llama/Llama-3.2-1B-Instruct")
    assert draft.weight_bytes - plain.weight_bytes == small.weight_bytes
    assert draft.block_bytes - plain.block_bytes == 16 * small.kv_bytes_per_token("bfloat16")
    assert eagle.block_bytes - plain.block_bytes == 16 * MODEL.kv_bytes_per_token("bfloat16") // 32
    seconds = [
        one.timer.verify_s(8, 32, 8000, (), 0)
        for one in (ngram, eagle, draft)
        if isinstance(one.timer, VerifyingStepTimer)
    ]
    assert seconds == sorted(seconds)
    least_s = 3 * small.weight_bytes / HARDWARE.bandwidth_bytes_per_s
    assert seconds[2] - seconds[0] >= least_s


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "--speculative-config is no JSON"),
        ("[]", "--speculative-config must be a JSON object"),
        (config(3, 0.5, "medusa"), "--speculative-config: method: Input should be"),
        (config(0, 0.5), "--speculative-config: num_speculative_tokens: Input should be greater"),
        ('{"method": "ngram", "num_speculative_tokens": 3}', "--speculative-config: acceptance: Field required"),
        (config(3, [0.5, 0.4]), "acceptance: has 2 shares for num_speculative_tokens 3"),
        (config(2, [0.5, 0.6]), "acceptance: a share grows"),
        (config(2, 1.5), "--speculative-config: acceptance"),
        (config(2, 0.5, prompt_lookup_max=4), "--speculative-config: prompt_lookup_max: not known here"),
        (config(2, 0.5, "draft_model"), "model: method draft_model needs one"),
        (config(2, 0.5, model="facebook/opt-125m"), "model: method ngram drafts without one"),
        (config(2, 0.5, "draft_model", model="facebook/opt-125m"), "a draft model must have the same"),
        (config(2, 0.5, "draft_model", model="nobody/none"), "--speculative-config: model: "),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_that_names_the_field(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        setup(speculative_config=text)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options", [{"policy": "sglang"}, {"scheduling_policy": "priority"}, {"pipeline_parallel_size": 2}]
)
def test_what_cannot_speculate_says_so(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"cannot have --speculative-config|cannot be simulated together"):
        setup(speculative_config=config(2, 0.5), **options)


EXAMPLES = settings(max_examples=40, deadline=None)

ENGINES = st.fixed_dictionaries(
    {
        "num_gpu_blocks": st.integers(48, 90),
        "max_num_seqs": st.just(16),
        "max_num_batched_tokens": st.sampled_from([16, 64, 256]),
        "async_scheduling": st.booleans(),
        "enable_prefix_caching": st.just(True),
        "front_end": st.sampled_from(["none", "vllm-v1"]),
        "kv_offloading_size": st.sampled_from([None, 1.0]),
        "speculative_config": st.sampled_from([config(1, 0.5), config(3, [0.9, 0.5, 0.5]), config(4, 1.0), DRAFT]),
    }
)


@EXAMPLES
@given(workloads(), ENGINES)
def test_every_token_comes_once_and_nothing_is_left_behind(workload: Workload, options: dict[str, Any]) -> None:
    ran = Ran(workload, spec(), EngineOptions(**options))
    records, figures = ran.records, ran.result.figures
    done = records.status == FINISHED
    assert ran.source.ends == dict.fromkeys(range(len(workload)), 1)
    fits = workload.input_tokens + workload.output_tokens < 44 * 16
    assert np.all(done[fits])
    assert np.array_equal(records.output_tokens[done & fits], workload.output_tokens[done & fits])
    assert int(records.gaps.count.sum()) == int((records.output_tokens[done] - 1).sum())
    assert np.all(records.gaps.gap_s >= 0.0)
    (member,) = ran.cluster.members
    assert member.scheduler.blocks.used_blocks == 0
    assert not member.scheduler.has_requests
    assert member.peak_kv_blocks < options["num_gpu_blocks"]
    assert 0 <= figures["spec_accepted_tokens"] <= figures["spec_draft_tokens"]
    # Each verification gives a token, and no more than was accepted besides; prompts give the others.
    verified = int((records.output_tokens[done] - 1).sum())
    resumed = ran.result.totals.preemptions
    assert figures["spec_drafts"] <= verified
    assert figures["spec_drafts"] + figures["spec_accepted_tokens"] >= verified - resumed


@EXAMPLES
@given(workloads(), ENGINES)
def test_drafts_that_are_never_right_save_no_step(workload: Workload, options: dict[str, Any]) -> None:
    plain = {name: value for name, value in options.items() if name != "speculative_config"}
    tokens = json.loads(options["speculative_config"])["num_speculative_tokens"]
    without, wrong = run(workload, **plain), run(workload, **plain, speculative_config=config(tokens, 0.0))
    assert np.array_equal(wrong.records.output_tokens, without.records.output_tokens)
    assert wrong.figures["spec_accepted_tokens"] == 0
    assert wrong.figures["spec_drafts"] >= 0
    if not (wrong.totals.preemptions or without.totals.preemptions):
        finished = wrong.records.status == FINISHED
        assert wrong.figures["spec_drafts"] == int((wrong.records.output_tokens[finished] - 1).sum())


@EXAMPLES
@given(workloads(), ENGINES, st.sampled_from(["elsewhere", "never"]))
def test_every_request_ends_once_where_replicas_fail(workload: Workload, options: dict[str, Any], retry: str) -> None:
    failures = [{"group": "all", "mean_time_between_failures_s": 0.3, "down_s": 0.01}]
    cluster = spec(groups=[{"name": "all", "replicas": 2}], failures=failures, retry=retry)
    ran = Ran(workload, cluster, EngineOptions(**options))
    assert ran.source.ends == dict.fromkeys(range(len(workload)), 1)
    records = ran.records
    done = records.status == FINISHED
    fits = workload.input_tokens + workload.output_tokens < 44 * 16
    assert np.array_equal(records.output_tokens[done & fits], workload.output_tokens[done & fits])
    for member in ran.cluster.members:
        assert member.scheduler.blocks.used_blocks == 0


@EXAMPLES
@given(workloads(most_input=500), ENGINES, st.booleans())
def test_decode_replicas_may_speculate_on_kv_that_others_computed(
    workload: Workload, options: dict[str, Any], layerwise: bool
) -> None:
    link = {"from": "p", "to": "d", "bandwidth_gb_per_s": 10.0, "layerwise": layerwise}
    groups = [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode"}]
    ran = Ran(workload, spec(groups=groups, links=[link]), EngineOptions(**options))
    assert ran.source.ends == dict.fromkeys(range(len(workload)), 1)
    assert int(ran.records.gaps.count.sum()) == int((ran.records.output_tokens - 1).clip(min=0).sum())
    for member in ran.cluster.members:
        assert member.scheduler.blocks.used_blocks == 0
