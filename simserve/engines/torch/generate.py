"""Text from a model in one call, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simserve.config import EngineOptions
from simserve.engines.base import SamplingParams, TokenLogprob
from simserve.engines.torch.core import EngineCore
from simserve.engines.torch.sequence import Sequence as TorchSequence
from simserve.engines.torch.setup import load_core
from simserve.errors import EngineError
from simserve.models import ModelSpec


@dataclass(frozen=True)
class Generation:
    """One answer; ``logprobs`` one per token if they were asked for."""

    text: str
    token_ids: list[int]
    finish_reason: str
    stop_reason: str | int | None
    logprobs: list[TokenLogprob]


def generate(
    prompts: str | Sequence[str | Sequence[int]],
    model: str | Path | ModelSpec | EngineCore,
    *,
    max_tokens: int = 128,
    sampling: SamplingParams | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    options: EngineOptions | None = None,
) -> list[Generation]:
    """Answers to ``prompts`` (texts or token ids), all in one batch as the scheduler packs them.

    ``model`` is a folder, or what :func:`load_core` gave, to be used again and again. Raises :class:`RequestError` for
    a prompt that cannot be answered, :class:`EngineError` if the model fails, and what :func:`load_core` raises.
    """
    core = model if isinstance(model, EngineCore) else load_core(model, device, dtype, options)
    sampling = sampling or SamplingParams()
    wanted = [prompts] if isinstance(prompts, str) else list(prompts)
    sequences = []
    for number, prompt in enumerate(wanted):
        ids = core.tokenizer.encode(prompt, add_special_tokens=True) if isinstance(prompt, str) else prompt
        sequence = TorchSequence(f"generate-{number}", ids, max_tokens, sampling)
        core.check(sequence)
        sequences.append(sequence)
    return _run(core, sequences)


def _run(core: EngineCore, sequences: list[TorchSequence]) -> list[Generation]:
    texts: dict[TorchSequence, list[str]] = {sequence: [] for sequence in sequences}
    logprobs: dict[TorchSequence, list[TokenLogprob]] = {sequence: [] for sequence in sequences}
    ends: dict[TorchSequence, tuple[str, str | int | None]] = {}
    try:
        for sequence in sequences:
            core.add(sequence)
        while len(ends) < len(sequences):
            for output in core.step():
                if output.error is not None:
                    raise EngineError(output.error)
                texts[output.sequence].append(output.text)
                if output.logprob is not None:
                    logprobs[output.sequence].append(output.logprob)
                if output.finish_reason is not None:
                    ends[output.sequence] = (output.finish_reason, output.stop_reason)
    finally:  # also where a notebook's user loses patience
        for sequence in sequences:
            core.abort(str(sequence.request_id))
    return [
        Generation("".join(texts[one]), one.token_ids[one.input_tokens :], *ends[one], logprobs[one])
        for one in sequences
    ]
