"""From logits to tokens: by inverse CDF, since torch.multinomial takes longer than a small model's step.

The order of steps is vLLM V1's: bias, end tokens before ``min_tokens``, penalties, temperature, ``min_p``, ``top_k``,
``top_p``. Candidates stand in the order of their ids, so that rounding noise between batches hardly moves anything.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch

from simserve.engines.base import SamplingParams, TokenLogprob
from simserve.engines.torch.sequence import Sequence

GREEDY_BELOW = 1e-5
"""Temperatures below this take the likeliest token."""

NARROW = 256
"""Candidates that top_k and top_p look at first; all of the vocabulary only where these are too few."""


@dataclass(frozen=True)
class Sample:
    """One sampled token; ``logprob`` only if asked for."""

    token_id: int
    logprob: TokenLogprob | None = None


class Sampler:
    """Draws one token for each row of logits; ``eos_token_ids`` are the model's own end tokens."""

    def __init__(self, eos_token_ids: Many[int] = ()) -> None:
        self._eos = tuple(eos_token_ids)

    def sample(self, logits: torch.Tensor, sequences: Many[Sequence]) -> list[Sample]:
        """One token for each of ``sequences``, whose ``logits`` [sequences, vocabulary] are float32 and used up."""
        asked = [row for row, sequence in enumerate(sequences) if sequence.sampling.logprobs is not None]
        raw = logits[asked].log_softmax(dim=-1) if asked else None
        for row, sequence in enumerate(sequences):
            if _is_adjusted(sequence.sampling):
                self._adjust_(logits[row], sequence)
        tokens = self._draw(logits, sequences)
        samples = [Sample(token) for token in tokens]
        if raw is not None:
            for logprobs, row in zip(raw, asked, strict=True):
                samples[row] = _with_logprob(tokens[row], logprobs, sequences[row].sampling.logprobs or 0)
        return samples

    def _draw(self, logits: torch.Tensor, sequences: Many[Sequence]) -> list[int]:
        tokens = _likeliest(logits)
        drawn = [row for row, sequence in enumerate(sequences) if sequence.sampling.temperature >= GREEDY_BELOW]
        whole = [row for row in drawn if not _is_truncated(sequences[row].sampling)]
        cut = [row for row in drawn if _is_truncated(sequences[row].sampling)]
        for rows, draw in ((whole, _draw_from_all), (cut, _draw_from_top)):
            if rows:
                chosen = [sequences[row] for row in rows]
                picked = draw(_tempered(logits if len(rows) == len(tokens) else logits[rows], chosen), chosen)
                for row, token in zip(rows, picked.tolist(), strict=True):
                    tokens[row] = token
        return tokens

    def _adjust_(self, logits: torch.Tensor, sequence: Sequence) -> None:
        """Bias, end tokens before their time and penalties, for one row, in place."""
        params = sequence.sampling
        if params.logit_bias:
            ids = torch.tensor(list(params.logit_bias), device=logits.device)
            logits[ids] += torch.tensor(list(params.logit_bias.values()), device=logits.device)
        if sequence.answer_tokens < params.min_tokens:
            logits[[*self._eos, *params.stop_token_ids]] = -torch.inf
        if not _has_penalties(params):
            return
        counts, prompt_seen = _counted(sequence, logits)
        answered = counts > 0
        if params.repetition_penalty != 1.0:
            penalised = torch.where(logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty)
            logits.copy_(torch.where(answered | prompt_seen, penalised, logits))
        logits -= params.frequency_penalty * counts + params.presence_penalty * answered


def _likeliest(logits: torch.Tensor) -> list[int]:
    """On CPUs by NumPy, whose argmax is vectorised; torch's takes twenty times as long."""
    best = logits.numpy().argmax(axis=-1) if logits.device.type == "cpu" else logits.argmax(dim=-1)
    tokens: list[int] = best.tolist()
    return tokens


def _is_adjusted(params: SamplingParams) -> bool:
    return bool(params.logit_bias) or params.min_tokens > 0 or _has_penalties(params)


def _has_penalties(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1.0 or params.frequency_penalty != 0.0 or params.presence_penalty != 0.0


def _is_truncated(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1.0


def _counted(sequence: Sequence, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How often each token stands in the answer, and whether in the prompt; kept on the sequence."""
    if sequence.penalty_counts is None or sequence.prompt_seen is None:
        sequence.penalty_counts = torch.zeros_like(logits)
        sequence.prompt_seen = torch.zeros_like(logits, dtype=torch.bool)
        sequence.prompt_seen[sequence.token_ids[: sequence.input_tokens]] = True
        sequence.counted_tokens = sequence.input_tokens
    for token in sequence.token_ids[sequence.counted_tokens :]:
        sequence.penalty_counts[token] += 1
    sequence.counted_tokens = len(sequence.token_ids)
    return sequence.penalty_counts, sequence.prompt_seen


def _tempered(logits: torch.Tensor, sequences: Many[Sequence]) -> torch.Tensor:
    """Logits over temperature, without tokens less likely than ``min_p`` times the likeliest."""
    params = [sequence.sampling for sequence in sequences]
    scaled = logits / _column([one.temperature for one in params], logits)
    if any(one.min_p > 0 for one in params):
        least = scaled.amax(dim=-1, keepdim=True) + _column([one.min_p for one in params], logits).log()
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    return scaled


def _draw_from_all(scaled: torch.Tensor, sequences: Many[Sequence]) -> torch.Tensor:
    return _inverse_cdf(scaled.softmax(dim=-1), sequences)


def _draw_from_top(scaled: torch.Tensor, sequences: Many[Sequence]) -> torch.Tensor:
    """Draw within top_k and top_p: from the first ``NARROW`` candidates where these are known to be enough."""
    vocabulary = scaled.shape[-1]
    top_k = _column([one.sampling.top_k if one.sampling.top_k > 0 else vocabulary for one in sequences], scaled)
    top_p = _column([one.sampling.top_p for one in sequences], scaled)
    ids, probs, enough = _nucleus(scaled, top_k, top_p, min(NARROW, vocabulary))
    picked = ids.gather(-1, _inverse_cdf(probs, sequences)[:, None])[:, 0]
    wide = (~enough).nonzero()[:, 0].tolist()
    if wide:
        ids, probs, _ = _nucleus(scaled[wide], top_k[wide], top_p[wide], vocabulary)
        picked[wide] = ids.gather(-1, _inverse_cdf(probs, [sequences[row] for row in wide])[:, None])[:, 0]
    return picked


def _nucleus(
    scaled: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the ``width`` likeliest tokens, ordered by id: ids, probabilities (0 if cut off), and per row whether the cut
    is among them.
    """
    values, ids = scaled.topk(width, dim=-1)
    probs = (values - scaled.logsumexp(dim=-1, keepdim=True)).exp()
    probs = probs.masked_fill(torch.arange(width, device=scaled.device) >= top_k, 0.0)
    sums = probs.cumsum(dim=-1)
    total = torch.where(top_k <= width, sums[:, -1:], 1.0)
    enough = (top_k <= width) | (sums[:, -1:] >= top_p * total)
    probs = probs.masked_fill(sums - probs >= top_p * total, 0.0)
    ids, order = ids.sort(dim=-1)
    return ids, probs.gather(-1, order), enough[:, 0] | (width == scaled.shape[-1])


def _inverse_cdf(probs: torch.Tensor, sequences: Many[Sequence]) -> torch.Tensor:
    """For each row the index at which its sequence's number falls; never one of probability 0."""
    sums = probs.cumsum(dim=-1)
    total = sums[:, -1:]
    target = _column([sequence.uniform() for sequence in sequences], probs) * total
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, target, right=True)[:, 0]


def _column(values: Many[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]


def _with_logprob(token: int, logprobs: torch.Tensor, top: int) -> Sample:
    values, ids = logprobs.topk(min(top, logprobs.shape[-1]))
    likeliest = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Sample(token, TokenLogprob(token, float(logprobs[token]), likeliest))
