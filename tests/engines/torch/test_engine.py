"""The torch engine as the server sees it: tokens as steps end, nobody held up, nothing left behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch", reason="the torch engine needs pip install simserve[torch]")

from simserve.config import EngineOptions  # noqa: E402
from simserve.engines.base import GenerationRequest, SamplingParams, TokenEvent  # noqa: E402
from simserve.engines.torch import EngineCore, TorchEngine, generate, load_core  # noqa: E402
from simserve.errors import EngineError, ModelError, RequestError  # noqa: E402
from simserve.scheduling import StepPlan  # noqa: E402

if TYPE_CHECKING:
    from engines.torch.conftest import TinyModel

Tiny = Callable[[str], "TinyModel"]
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


@asynccontextmanager
async def running(
    tiny: Tiny, before_step: Callable[[StepPlan], object] | None = None, name: str = "llama-2", **options: Any
) -> AsyncIterator[TorchEngine]:
    """An engine at work; ``before_step`` sees each plan in the engine's thread, and may take its time or fail."""
    engine = TorchEngine.load(tiny(name).folder, options=EngineOptions(**options), threads=1)
    run = engine.core.runner.run

    def watched(plan: StepPlan) -> Any:
        if before_step is not None:
            before_step(plan)
        return run(plan)

    engine.core.runner.run = watched  # type: ignore[method-assign]
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def request(name: str, prompt: list[int], tokens: int = 10, sampling: SamplingParams = GREEDY) -> GenerationRequest:
    return GenerationRequest(name, prompt, tokens, sampling=sampling)


async def collect(engine: TorchEngine, wanted: GenerationRequest) -> list[TokenEvent]:
    return [event async for event in engine.submit(wanted)]


async def settled(engine: TorchEngine) -> None:
    """Until nothing runs and nothing waits."""
    for _ in range(2000):
        status = engine.status()
        if not (status.running_requests or status.waiting_requests or status.inflight_batches):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"the engine is not idle: {engine.status()}")


async def test_tokens_come_one_by_one_with_ids_text_and_times(tiny: Tiny, prompts: list[list[int]]) -> None:
    async with running(tiny, lambda plan: time.sleep(0.005)) as engine:
        events = await collect(engine, request("a", prompts[4], 12))
    model = tiny("llama-2")
    assert [token for event in events for token in event.token_ids] == model.greedy(prompts[4], 12)
    assert len(events) > 6
    (alone,) = generate([prompts[4]], load_core(model.folder), max_tokens=12, sampling=GREEDY)
    assert "".join(event.text for event in events) == alone.text
    assert [event.finish_reason for event in events] == [None] * (len(events) - 1) + ["length"]
    timing = events[-1].timing
    assert timing is not None
    assert 0 < timing.arrival_s <= timing.scheduled_s < timing.first_token_s < timing.finish_s


async def test_a_token_leaves_when_its_step_ends(tiny: Tiny, prompts: list[list[int]]) -> None:
    """The first is here when nearly all steps are still to come, and each has an event of its own."""
    async with running(tiny, lambda plan: time.sleep(0.03)) as engine:
        stream = engine.submit(request("a", prompts[1], 20))
        first = await anext(stream)
        assert engine.status().steps < 10
        rest = [event async for event in stream]
    assert ids_of([first]) == tiny("llama-2").greedy(prompts[1], 1)
    assert len(rest) > 10


async def test_sampled_text_depends_on_the_seed_and_not_on_the_neighbours(tiny: Tiny, prompts: list[list[int]]) -> None:
    mine = partial(request, tokens=20, sampling=SamplingParams(temperature=0.8, top_p=0.95, seed=11, ignore_eos=True))
    noise = SamplingParams(temperature=1.0, ignore_eos=True)
    async with running(tiny, max_num_batched_tokens=48, max_num_seqs=16) as engine:
        alone = await collect(engine, mine("alone", prompts[4]))
        crowd = [collect(engine, request(f"{at}", prompt, 25, noise)) for at, prompt in enumerate(prompts)]
        in_company, *_ = await asyncio.gather(collect(engine, mine("mine", prompts[4])), *crowd)
    assert ids_of(in_company) == ids_of(alone)


def ids_of(events: list[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.token_ids]


async def test_logprobs_come_with_their_tokens(tiny: Tiny, prompts: list[list[int]]) -> None:
    async with running(tiny) as engine:
        events = await collect(engine, request("a", prompts[2], 5, SamplingParams(temperature=0.0, logprobs=3)))
    logprobs = [entry for event in events for entry in event.logprobs]
    assert [entry.token_id for entry in logprobs] == ids_of(events)
    assert all(entry.top[0] == (entry.token_id, entry.logprob) and len(entry.top) == 3 for entry in logprobs)
    expected = tiny("llama-2").logits(prompts[2])[-1].log_softmax(-1)
    assert logprobs[0].logprob == pytest.approx(float(expected.max()), abs=1e-4)


async def test_a_client_that_hangs_up_frees_its_blocks_with_the_next_step(tiny: Tiny, prompts: list[list[int]]) -> None:
    async with running(tiny, lambda plan: time.sleep(0.02)) as engine:
        stream = engine.submit(request("a", prompts[5], 300))
        await anext(stream)
        assert engine.status().kv_blocks_used > 0
        await stream.aclose()
        steps = engine.status().steps
        await settled(engine)
        status = engine.status()
    assert status.steps - steps <= 1
    assert (status.kv_blocks_used, status.aborted_requests, status.completed_requests) == (0, 1, 0)


async def test_two_hundred_streams_half_of_them_cut_off(tiny: Tiny, prompts: list[list[int]]) -> None:
    """At random moments, with too few blocks for all: every other answer is right, and nothing stays behind."""
    model, draw = tiny("llama-2"), random.Random(5)
    expected = {at: model.greedy(prompt, 20) for at, prompt in enumerate(prompts)}

    async def one(engine: TorchEngine, at: int) -> None:
        await asyncio.sleep(draw.random() * 0.5)
        stream = engine.submit(request(f"{at}", prompts[at % 10], 20))
        if at % 2:
            for _ in range(draw.randrange(6)):
                await anext(stream)
            await stream.aclose()
            return
        events = [event async for event in stream]
        assert ids_of(events) == expected[at % 10]
        assert events[-1].finish_reason == "length"

    options = {"num_gpu_blocks": 40, "max_num_seqs": 24, "max_num_batched_tokens": 128}
    async with running(tiny, **options) as engine:
        await asyncio.wait_for(asyncio.gather(*(one(engine, at) for at in range(200))), timeout=120)
        await settled(engine)
        status = engine.status()
        assert engine.core._texts == {}
    assert status.kv_blocks_used == 0
    assert status.completed_requests + status.aborted_requests == 200
    assert status.completed_requests >= 100


async def test_what_fails_in_the_model_ends_those_in_the_step_and_nobody_else(
    tiny: Tiny, prompts: list[list[int]]
) -> None:
    """Two get an error; the one in the queue, and the next with the same prompt, get their answers.

    Both fail the model: whether they come in one step or in two is up to the threads.
    """
    model = tiny("llama-2")

    def fail(plan: StepPlan) -> None:
        if any(chunk.request.request_id in ("bad", "with it") for chunk in plan.chunks):
            raise RuntimeError("the matrix is singular\nmore lines")

    async with running(tiny, fail, max_num_seqs=2) as engine:
        bad, with_it, waiting = await asyncio.gather(
            collect(engine, request("bad", prompts[5])),
            collect(engine, request("with it", prompts[5])),
            collect(engine, request("waiting", prompts[4])),
        )
        again = await collect(engine, request("again", prompts[5]))
        status = engine.status()
    for events in (bad, with_it):
        assert [event.finish_reason for event in events] == ["error"]
        assert events[0].error == "the engine failed in the middle of a step (RuntimeError: the matrix is singular)"
    assert ids_of(waiting) == model.greedy(prompts[4], 10)
    assert ids_of(again) == model.greedy(prompts[5], 10)
    assert again[-1].timing is not None
    assert again[-1].timing.cached_tokens == 0  # what the failed step left half written is found by nobody
    assert (status.kv_blocks_used, status.extra["failed_requests"], status.completed_requests) == (0, 2, 2)


async def test_running_out_of_memory_is_said_with_the_remedy(tiny: Tiny, prompts: list[list[int]]) -> None:
    def fail(plan: StepPlan) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    async with running(tiny, fail) as engine:
        (event,) = await collect(engine, request("a", prompts[2]))
    assert event.error is not None
    assert "out of memory in a step of 16 tokens" in event.error
    assert "--max-num-batched-tokens" in event.error


async def test_a_bug_leaves_nobody_waiting(
    tiny: Tiny, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineCore, "step", lambda core: 1 / 0)
    async with running(tiny) as engine:
        (event,) = await collect(engine, request("a", prompts[2]))
        assert event.finish_reason == "error"
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            engine.submit(request("b", prompts[2]))


@pytest.mark.parametrize(
    ("prompt", "sampling", "complaint"),
    [
        ([], GREEDY, "empty"),
        ([5] * 600, GREEDY, "600 tokens"),
        ([5, 300], GREEDY, "vocabulary of 300"),
        ([5], SamplingParams(logit_bias={300: 1.0}), "logit_bias has token 300"),
        ([5], SamplingParams(stop_token_ids=(-1,)), "stop_token_ids has token -1"),
    ],
)
async def test_bad_input_is_refused_at_once(
    prompt: list[int], sampling: SamplingParams, complaint: str, tiny: Tiny
) -> None:
    async with running(tiny) as engine:
        with pytest.raises(RequestError, match=complaint):
            engine.submit(request("a", prompt, sampling=sampling))
        assert len(ids_of(await collect(engine, request("a", [5, 6], 3)))) == 3


async def test_two_live_requests_cannot_share_an_id(tiny: Tiny, prompts: list[list[int]]) -> None:
    async with running(tiny) as engine:
        stream = engine.submit(request("a", prompts[2], 300))
        with pytest.raises(RequestError, match="in use"):
            engine.submit(request("a", prompts[2]))
        await stream.aclose()


async def test_stopping_the_engine_ends_open_streams(tiny: Tiny, prompts: list[list[int]]) -> None:
    async with running(tiny, lambda plan: time.sleep(0.01)) as engine:
        stream = engine.submit(request("a", prompts[2], 400))
        await anext(stream)
    assert [event.finish_reason async for event in stream][-1] == "abort"


def test_what_cannot_be_loaded_is_said_where_it_is_asked_for(tmp_path: Any) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        TorchEngine.load("nowhere")


async def test_embeddings_are_directions_of_hidden_states(tiny: Tiny, prompts: list[list[int]]) -> None:
    """Of the last token, or the mean of all, as transformers computes them; between the steps of an answer."""
    reference = tiny("llama-2").reference.model
    async with running(tiny) as engine:
        answer = asyncio.create_task(collect(engine, request("a", prompts[4], 30)))
        last = await engine.embed(prompts[:3])
        (mean,) = await engine.embed([prompts[2]], pooling="mean")
        with pytest.raises(RequestError, match="empty"):
            await engine.embed([[5], []])
        assert ids_of(await answer) == tiny("llama-2").greedy(prompts[4], 30)
        status = engine.status()
    with torch.no_grad():
        hidden = [reference(torch.tensor([prompt])).last_hidden_state[0] for prompt in prompts[:3]]
    normalised = partial(torch.nn.functional.normalize, dim=0)
    for values, states in zip(last, hidden, strict=True):
        assert torch.allclose(torch.tensor(values), normalised(states[-1]), atol=1e-4)
    assert torch.allclose(torch.tensor(mean), normalised(hidden[2].mean(dim=0)), atol=1e-4)
    assert status.kv_blocks_used == 0


async def test_it_says_what_it_is(tiny: Tiny, prompts: list[list[int]]) -> None:
    async with running(tiny, num_gpu_blocks=50) as engine:
        engine.ledger = []
        await collect(engine, request("a", prompts[2], 3))
        about, status = engine.describe(), engine.status()
        assert [step.num_decodes for step in engine.ledger] == [0, 1, 1]
    assert (about["engine"], about["device"], about["dtype"], about["kv_blocks"]) == ("torch", "cpu", "float32", 50)
    assert (status.kv_blocks_total, status.kv_block_bytes) == (49, 16 * 2 * 2 * 4 * 12 * 4)
