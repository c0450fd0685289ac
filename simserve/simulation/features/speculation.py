"""``--speculative-config``: what drafts, how often it is right, and what it costs in time and memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simserve.config import EngineOptions
from simserve.errors import ConfigError, SimServeError
from simserve.hardware import HardwareProfile
from simserve.latency.host import HostCosts
from simserve.latency.memory import MemoryPlan, blocks_of
from simserve.latency.verification import VerifyingStepTimer
from simserve.models import ModelSpec, dtype_bytes_of, load_model
from simserve.scheduling.speculative import Drafts
from simserve.simulation.formats import Formats, formats_of

FLAG = "--speculative-config"
MOST_DRAFT_TOKENS = 64

Share = Annotated[float, Field(ge=0, le=1)]


class SpeculativeConfig(BaseModel):
    """vLLM's keys, and what nobody knows without running the models: ``acceptance``.

    Either for each position the share of drafts that are right up to there, as vLLM's
    ``spec_decode_num_accepted_tokens_per_pos`` counts them, or one number: the share of single tokens that are right.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["draft_model", "ngram", "eagle", "eagle3"]
    num_speculative_tokens: Annotated[int, Field(ge=1, le=MOST_DRAFT_TOKENS)]
    model: str | None = None
    acceptance: Share | tuple[Share, ...]
    seed: int = 0

    @model_validator(mode="after")
    def _agrees(self) -> SpeculativeConfig:
        if self.method == "draft_model" and self.model is None:
            raise ValueError("model: method draft_model needs one, which drafts")
        if self.method == "ngram" and self.model is not None:
            raise ValueError("model: method ngram drafts without one; leave it out")
        if isinstance(self.acceptance, tuple):
            if len(self.acceptance) != self.num_speculative_tokens:
                raise ValueError(
                    f"acceptance: has {len(self.acceptance)} shares for num_speculative_tokens "
                    f"{self.num_speculative_tokens}; give one for each"
                )
            if list(self.acceptance) != sorted(self.acceptance, reverse=True):
                raise ValueError("acceptance: a share grows: a token counts only if those before it were right too")
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Of drafts, those whose first 1, 2, ... tokens are all right."""
        if isinstance(self.acceptance, tuple):
            return self.acceptance
        return tuple(self.acceptance ** (position + 1) for position in range(self.num_speculative_tokens))


@dataclass(frozen=True)
class Speculation:
    """A configuration that can run; ``draft`` is None where drafting needs no model on the device.

    ``draft_weight_bytes`` and ``draft_kv_bytes`` (of a token) are those of each device.
    """

    config: SpeculativeConfig
    draft: ModelSpec | None
    draft_formats: Formats | None
    draft_weight_bytes: int
    draft_kv_bytes: int

    @property
    def drafts(self) -> Drafts:
        """For the scheduler."""
        config = self.config
        return Drafts(config.shares, config.num_speculative_tokens if self.draft else 0, config.seed)

    def in_memory(
        self, plan: MemoryPlan, model: ModelSpec, hardware: HardwareProfile, options: EngineOptions
    ) -> MemoryPlan:
        """``plan`` with the drafter's weights, and its KV in every block."""
        if self.draft is None:
            return plan
        devices = options.tensor_parallel_size
        weights = plan.weight_bytes + self.draft_weight_bytes
        block = plan.block_bytes + self.draft_kv_bytes * options.block_size
        taken = weights + plan.activation_bytes + plan.runtime_bytes
        blocks = blocks_of(model, hardware, devices, plan.usable_bytes, taken, block)
        return replace(plan, weight_bytes=weights, block_bytes=block, num_blocks=blocks)

    def timer(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        options: EngineOptions,
        formats: Formats,
        host: HostCosts,
        max_tokens: int,
        max_seqs: int,
    ) -> VerifyingStepTimer:
        """Of steps with as many rows for a decode as there are drafts, and one more."""
        tokens = self.config.num_speculative_tokens
        common: dict[str, Any] = {
            "tensor_parallel_size": options.tensor_parallel_size, "max_tokens": max_tokens,
            "graphs": not options.enforce_eager, "host": host,
        }  # fmt: skip
        draft = None
        if self.draft is not None and self.draft_formats is not None:
            draft = VerifyingStepTimer(
                self.draft, hardware, **_formats(self.draft_formats), **common, max_seqs=max_seqs
            )
        rows = max_seqs * (tokens + 1)
        return VerifyingStepTimer(
            model, hardware, draft=draft, draft_tokens=tokens, **_formats(formats), **common, max_seqs=rows
        )


def speculation_of(model: ModelSpec, hardware: HardwareProfile, options: EngineOptions) -> Speculation | None:
    """What ``options`` ask for; None if for nothing.

    Raises :class:`ConfigError` in one sentence that names the field.
    """
    if options.speculative_config is None:
        return None
    config = read_config(str(options.speculative_config))
    draft = _draft(config, model)
    if draft is None:
        return Speculation(config, None, None, 0, 0)
    own = replace(options, quantization=None)
    try:
        formats = formats_of(draft, hardware, own)
        devices = options.tensor_parallel_size
        kv_bytes = draft.kv_bytes_per_token(formats.kv_dtype, devices)
        weights = draft.weight_bytes_for(formats.dtype, devices, formats.quantization)
    except SimServeError as error:
        raise ConfigError(f"{FLAG}: model: {error}") from None
    if config.method != "draft_model":  # its embedding and lm_head are the model's own
        shared = [gemm.parameters for gemm in draft.gemms(devices) if gemm.kind == "head"]
        weights -= 2 * sum(shared) * dtype_bytes_of(formats.dtype)
    return Speculation(config, draft, formats, weights, kv_bytes)


def read_config(text: str) -> SpeculativeConfig:
    """``text`` as JSON; raises :class:`ConfigError`."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{FLAG} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f'{FLAG} must be a JSON object, as {{"method": "ngram", ...}}, not {text}')
    try:
        return SpeculativeConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][:1])
        said = "not known here" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{FLAG}: {': '.join(part for part in (field, said) if part)}") from None


def _draft(config: SpeculativeConfig, model: ModelSpec) -> ModelSpec | None:
    if config.method == "ngram":
        return None
    if config.method != "draft_model":
        return replace(
            model, name=f"{config.method} head of {model.name}", num_layers=1, moe=None, tie_word_embeddings=False,
            learned_positions=0, quantization=None,
        )  # fmt: skip
    assert config.model is not None
    try:
        draft = load_model(config.model)
    except SimServeError as error:
        raise ConfigError(f"{FLAG}: model: {error}") from None
    if draft.vocab_size != model.vocab_size:
        raise ConfigError(
            f"{FLAG}: model: {draft.name} has {draft.vocab_size:,} tokens in its vocabulary and {model.name} "
            f"{model.vocab_size:,}; a draft model must have the same"
        )
    return draft


def _formats(formats: Formats) -> dict[str, Any]:
    return {"dtype": formats.dtype, "weights": formats.weights, "kv_dtype": formats.kv_dtype}
