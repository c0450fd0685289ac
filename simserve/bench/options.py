"""What the command line says of a run, as values: checked at the door, so that the inside can trust them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from simserve.bench.load.schedule import Shape
from simserve.bench.tokens import TokenizerOptions
from simserve.errors import ConfigError

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S = 6 * 3600.0
"""As in ``vllm bench serve``."""

LoraAssignment = Literal["random", "round-robin"]


@dataclass(frozen=True)
class Target:
    """Whom to ask. ``endpoint`` None follows from the backend, ``model`` None is asked of the server.

    ``served_model_name`` is what the server calls the model, where that is not ``model``; ``lora_modules`` replace it,
    request by request.
    """

    url: str = DEFAULT_URL
    backend: str = "openai"
    endpoint: str | None = None
    model: str | None = None
    served_model_name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    insecure: bool = False
    lora_modules: Sequence[str] = ()
    lora_assignment: LoraAssignment = "random"


@dataclass(frozen=True)
class Questions:
    """What to ask: a data set and its settings, how many samples of it, and what goes into every body.

    ``ignore_eos`` None sends it with noise, which makes a model stop at random, to servers that are known to take it.
    """

    dataset: str = "random"
    path: str | None = None
    count: int = 1000
    seed: int = 0
    output_tokens: int | None = None
    shuffle: bool = True
    oversample: bool = True
    skip_chat_template: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = True
    ignore_eos: bool | None = None
    logprobs: int | None = None
    continuous_usage: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 1 and self.dataset not in ALL_IF_NONE:
            raise ConfigError(f"--num-prompts is {self.count}; give at least 1")
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}; give 0 or more")


ALL_IF_NONE = ("custom", "custom_image", "custom_audio", "spec_bench", "timed_trace")
"""Data sets of which 0 prompts or fewer mean all of them."""


@dataclass(frozen=True)
class BenchOptions:
    """One run."""

    target: Target = field(default_factory=Target)
    questions: Questions = field(default_factory=Questions)
    shape: Shape = field(default_factory=Shape)
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    processes: int = 1
    num_warmups: int = 0
    ready_check_timeout_s: float = 0.0
    request_timeout_s: float = DEFAULT_TIMEOUT_S
    request_id_prefix: str | None = None
    profile: bool = False
    keep_texts: bool = False

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ConfigError(f"--processes is {self.processes}; give at least 1")
        if self.num_warmups < 0:
            raise ConfigError(f"--num-warmups is {self.num_warmups}; give 0 or more")
        if not self.request_timeout_s > 0:
            raise ConfigError(f"--request-timeout is {self.request_timeout_s:g} s; give more than 0")
        if self.shape.max_concurrency is not None and self.shape.max_concurrency < self.processes:
            raise ConfigError(
                f"--max-concurrency {self.shape.max_concurrency} cannot be shared by {self.processes} processes;"
                " give fewer --processes"
            )
