"""Runs the scheduler's plans: the synchronous core of the torch engine, which knows no clock and no clients."""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np
import torch

from simserve.engines.base import SamplingParams
from simserve.engines.torch.attention import KVPages
from simserve.engines.torch.batch import Batch
from simserve.engines.torch.build import load_transformer
from simserve.engines.torch.sampler import Sample, Sampler
from simserve.engines.torch.sequence import Sequence
from simserve.engines.torch.static_decode import StaticDecode
from simserve.engines.torch.transformer import Transformer
from simserve.errors import ConfigError
from simserve.models import ModelSpec
from simserve.scheduling import PrefillChunk, StepPlan


class ModelRunner:
    """A model on a device with its KV pages; ``num_pages`` counts page 0, which belongs to nobody."""

    def __init__(self, model: Transformer, num_pages: int, page_tokens: int = 16, *, compiled: bool = False) -> None:
        self.model = model
        self.pages = KVPages(model.spec, num_pages, page_tokens, model.device, model.dtype)
        self._sampler = Sampler(model.details.eos_token_ids)
        self._static: StaticDecode | None = None
        if model.spec.moe is None and (compiled or model.device.type == "cuda"):  # experts depend on values
            self._static = StaticDecode(model, self.pages, compiled=compiled)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> list[Sample]:
        """Compute one step; gives the tokens of ``plan.sampled``, in that order.

        ``plan`` names its decodes, all its requests are :class:`Sequence`, and their ``pages`` reach as far as the
        step does. The sampled tokens are not added to them: that is for whoever asked.
        """
        if self._static is not None and not plan.chunks:
            decodes = [_sequence(request) for request in plan.decodes]
            if self._static.takes(decodes):
                return self._sampler.sample(self._static.logits(decodes), decodes)
        batch = Batch(self.pages)
        order = sorted(range(len(plan.decodes)), key=lambda at: -len(_sequence(plan.decodes[at]).token_ids))
        batch.add_decodes([_sequence(plan.decodes[at]) for at in order])
        for chunk in plan.chunks:
            batch.add_chunk(chunk)
        hidden = batch.hidden(self.model)
        sampled = [_sequence(plan.decodes[at]) for at in order]
        sampled += [_sequence(chunk.request) for chunk in plan.chunks if chunk.samples]
        if not sampled:
            return []
        if len(batch.sampled_rows) != len(hidden):
            hidden = hidden[batch.sampled_rows]
        samples = self._sampler.sample(self.model.logits(hidden), sampled)
        in_order = list(samples)
        for place, at in enumerate(order):
            in_order[at] = samples[place]
        return in_order

    @torch.inference_mode()
    def embed(self, token_ids: Many[int], pooling: str = "last") -> list[float]:
        """The direction of a text: its last token's hidden state, or the ``mean`` of all, normalised to length 1."""
        plan = StepPlan(0)
        sequence = Sequence("embedding", token_ids, 1, SamplingParams())
        plan.add_chunk(PrefillChunk(sequence, len(token_ids), 0, samples=True))
        batch = Batch(self.pages, keep=False)
        batch.add_chunk(plan.chunks[0])
        hidden = self.model.normed(batch.hidden(self.model)).float()
        pooled = hidden.mean(dim=0) if pooling == "mean" else hidden[-1]
        values: list[float] = torch.nn.functional.normalize(pooled, dim=0).tolist()
        return values


def load_runner(
    spec: ModelSpec,
    *,
    num_pages: int,
    page_tokens: int = 16,
    device: str = "cpu",
    dtype: str | None = None,
    random_weights: bool = False,
    compiled: bool = False,
) -> ModelRunner:
    """A runner with the weights in the folder of ``spec``, or random ones.

    Build it in the thread that will run it: a second thread gets OpenMP threads of its own, and both get slow.
    """
    place = torch.device(device)
    model = load_transformer(spec, place, dtype or spec.dtype, random_weights=random_weights, compiled=compiled)
    return ModelRunner(model, num_pages, page_tokens, compiled=compiled)


def hand_made_plan(
    runner: ModelRunner,
    decode_contexts: Many[int] = (),
    chunks: Many[tuple[int, int]] = (),
    sampling: SamplingParams | None = None,
) -> StepPlan:
    """A step without a scheduler, for measuring: decodes on so many tokens each, and chunks of (tokens, context).

    Everybody has random tokens and pages of its own, scattered as in an engine that has run for a while; contexts are
    zeros, which take as long as any. A plan can be run again and again, and does the same each time.
    """
    plan = StepPlan(0)
    sampling = sampling or SamplingParams(temperature=0.0)
    vocabulary, size = runner.model.spec.vocab_size, runner.pages.page_tokens
    random = np.random.default_rng(0)
    pages = (random.permutation(runner.pages.num_pages - 1) + 1).tolist()

    def sequence(tokens: int) -> Sequence:
        count = -(-tokens // size)
        if count > len(pages):
            raise ConfigError(f"the plan needs more pages than the runner has, which are {runner.pages.num_pages - 1}")
        made = Sequence(f"{len(pages)}", random.integers(0, vocabulary, tokens).tolist(), 1, sampling)
        made.pages = pages[-count:]
        del pages[-count:]
        return made

    plan.decodes = [sequence(context + 1) for context in decode_contexts]
    plan.num_decodes, plan.decode_context_tokens = len(decode_contexts), sum(decode_contexts)
    for tokens, context in chunks:
        plan.add_chunk(PrefillChunk(sequence(context + tokens), tokens, context, samples=True))
    return plan


def _sequence(request: object) -> Sequence:
    assert isinstance(request, Sequence)
    return request
