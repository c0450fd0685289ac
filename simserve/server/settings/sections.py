"""The settings of ``simserve serve``, section by section: names, types, defaults and what each is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from simserve.config import DEFAULT_HARDWARE, DEFAULT_MODEL, Permission
from simserve.errors import WorkloadError
from simserve.server.answers.lengths import USUAL_LENGTH
from simserve.server.settings.cluster import ClusterSection
from simserve.server.settings.quantities import (
    Bytes,
    Seconds,
    SecondsFrom0,
    read_bytes_or_seconds,
    read_count_or_seconds,
)
from simserve.server.settings.section import Section, contradiction, engine_keys, setting
from simserve.workload.lengths import SPECS, parse_length

MIN_SECRET_BYTES = 32
"""A key for HS256 is as long as its digest at least (RFC 7518, 3.2)."""

Count = Annotated[int, Field(ge=1)]
EngineType = Literal["simulated", "torch"]


ONLY_OF = {"simulated": ("hardware", "memory_gb", "time_scale"), "torch": ("device", "threads")}
"""Keys of `engine` that mean something to one kind of engine alone."""

NOT_OF_A_CLUSTER = ("available", "models_dir", "preload", "max_loaded", "unload_timeout")
"""Keys of `models` that mean nothing where all models are those of a cluster's groups, which are always there."""


class ServerSection(Section):
    """Where and how HTTP is served."""

    host: str = setting("0.0.0.0", "address to listen on; 127.0.0.1 is this machine alone")
    port: Annotated[int, Field(ge=0, le=65535)] = setting(8000, "port to listen on; 0 takes any free one")
    workers: Count = setting(1, "processes that do HTTP, all before one engine")
    timeout: Seconds | None = setting(None, "longest time for one request, from its arrival to the last byte; then 504")
    read_timeout: Seconds = setting(60.0, "longest time for a client to send its request's body; then 408")
    keep_alive_timeout: Seconds = setting(75.0, "how long a connection may say nothing before it is closed")
    max_body_size: Bytes = setting(32 * 1024 * 1024, "largest request body; then 413")
    max_waiting_requests: Count | None = setting(None, "sequences that may wait for their first step; then 503")
    allowed_origins: list[str] = setting(
        [], 'other sites whose pages may use the API in a browser, such as "https://chat.example"; "*" for any'
    )
    shutdown_grace: SecondsFrom0 = setting(5.0, "how long SIGTERM lets open requests go on")


class KeySection(Section):
    """One key that clients may use; a plain string in the list is a key that may do all."""

    key: SecretStr = setting(..., "the key, or `sha256:` and its digest in hexadecimal")
    permissions: list[Permission] = setting(["all"], "what it opens: all, chat, completions, embeddings, models, admin")
    requests_per_minute: Count | None = setting(None, "its own limit, before that of `auth`")
    tokens_per_minute: Count | None = setting(None, "its own limit, before that of `auth`")


def _as_key(value: object) -> object:
    return {"key": value} if isinstance(value, str) else value


class AuthSection(Section):
    """Who may ask for what, and how often."""

    enabled: bool | None = setting(None, "ask for a key; by default if `keys` or `secret_key` are given")
    keys: list[Annotated[KeySection, BeforeValidator(_as_key)]] = setting([], "keys that clients may use")
    secret_key: SecretStr | None = setting(None, f"signs tokens of `simserve keys`; {MIN_SECRET_BYTES} bytes at least")
    store: Path | None = setting(None, "file of `simserve keys` with the tokens that were made and revoked")
    requests_per_minute: Count | None = setting(None, "limit of each key that has none of its own")
    tokens_per_minute: Count | None = setting(None, "limit of each key that has none of its own, prompt and answer")
    open_paths: list[str] = setting(
        ["/health", "/ping", "/version", "/load", "/metrics"], "paths that need no key"
    )  # fmt: skip

    @field_validator("secret_key")
    @classmethod
    def _is_long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise contradiction(f"it must have at least {MIN_SECRET_BYTES} bytes; try `openssl rand -hex 32`")
        return secret

    @model_validator(mode="after")
    def _keys_agree(self) -> AuthSection:
        if self.enabled and not self.keys and self.secret_key is None:
            raise contradiction("enabled is true, but there are neither keys nor a secret_key")
        if self.store is not None and self.secret_key is None:
            raise contradiction("the store is of signed tokens, which need a secret_key")
        return self

    @property
    def on(self) -> bool:
        """Whether clients need a key."""
        return self.enabled if self.enabled is not None else bool(self.keys or self.secret_key)


class Rotation(Section):
    """When a log file is put aside: at a size or at an age."""

    bytes: Bytes | None = None
    seconds: Seconds | None = None


class Retention(Section):
    """Which log files are kept: so many beside the present one, or those so young."""

    count: Annotated[int, Field(ge=0)] | None = None
    seconds: Seconds | None = None


class LoggingSection(Section):
    """What is logged, how, and where to."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "least severity that is logged")
    format: Literal["text", "json"] = setting("text", "lines for people, or one JSON object a line")
    console: bool = setting(True, "log to standard output")
    path: Path | None = setting(None, "log to this file too")
    rotation: Annotated[Rotation, BeforeValidator(read_bytes_or_seconds)] | None = setting(
        None, "put the file aside at this size (`10 MB`) or age (`1 day`)"
    )
    retention: Annotated[Retention, BeforeValidator(read_count_or_seconds)] | None = setting(
        None, "how many files put aside are kept (a number), or for how long (`7 days`)"
    )
    access: bool = setting(True, "log each request when it ends")

    @field_validator("level", mode="before")
    @classmethod
    def _in_any_case(cls, level: object) -> object:
        return level.lower() if isinstance(level, str) else level

    @model_validator(mode="after")
    def _keys_agree(self) -> LoggingSection:
        for name in ("rotation", "retention"):
            if getattr(self, name) is not None and self.path is None:
                raise contradiction(f"{name} is for a file, but there is no path")
        if self.retention is not None and self.rotation is None:
            raise contradiction("retention is for files put aside, but there is no rotation")
        return self


class AvailableModel(engine_keys("EngineKeysOfAModel", without="max_model_len")):  # type: ignore[misc]
    """One model that can be asked for; what it leaves out is as in `engine`. Its name in the list is its name."""

    path: str | None = setting(None, "a shipped model or a folder with a config.json; by default the name in the list")
    type: EngineType | None = setting(None, "what answers for it, simulated or torch")
    max_tokens: Count | None = setting(None, "longest sequence, prompt and answer (what model and memory allow)")
    hardware: str | None = setting(None, "a hardware profile, or a .yaml file")
    aliases: list[str] = setting([], "other names it goes by")


def _by_name(value: object) -> object:
    """A list of entries that have a ``name`` as a mapping by name."""
    if isinstance(value, dict):
        return {name: {} if entry is None else entry for name, entry in value.items()}
    if not isinstance(value, list):
        return value
    by_name: dict[Any, Any] = {}
    for entry in value:
        if not (isinstance(entry, dict) and isinstance(entry.get("name"), str)):
            raise contradiction("in a list, each model needs a name")
        name = entry["name"]
        if name in by_name:
            raise contradiction(f"the model {name} is there twice")
        by_name[name] = {field: value for field, value in entry.items() if field != "name"}
    return by_name


class ModelsSection(Section):
    """Which models can be asked for, and which of them are in memory."""

    default: str | None = setting(None, f"answers where a request names none; else the first, or {DEFAULT_MODEL}")
    served_names: list[str] = setting([], "what clients call the default model; answers carry the first name")
    preload: list[str] | None = setting(None, "models that are there when the server starts (the default one)")
    max_loaded: Count | None = setting(None, "models in memory at a time; the one not used for longest makes room")
    unload_timeout: Seconds | None = setting(None, "unload a model that nobody has asked for this long")
    load_timeout: Seconds = setting(300.0, "longest time that a request waits for its model; then 503")
    disk_bandwidth_gb_per_s: Annotated[float, Field(gt=0)] = setting(
        6.5, "speed at which weights are read, in 10^9 bytes a second (Samsung PM9A3, an NVMe disk for servers)"
    )
    lora_modules: list[str] = setting(
        [], "LoRA adapters of an engine with `enable_lora`: name=path, or JSON as in vLLM"
    )
    models_dir: Path | None = setting(None, "folder of models: all in it are available, and relative paths begin there")
    available: Annotated[dict[str, AvailableModel], BeforeValidator(_by_name)] = setting(
        {}, "models by the name that clients use"
    )

    @model_validator(mode="after")
    def _keys_agree(self) -> ModelsSection:
        if self.preload is not None and self.max_loaded is not None and len(self.preload) > self.max_loaded:
            raise contradiction(f"preload has {len(self.preload)} models, and max_loaded is {self.max_loaded}")
        return self


class EngineSection(engine_keys("EngineKeys", without="max_num_seqs")):  # type: ignore[misc]
    """What answers, and how fast; the engine's options hold for every model that does not say otherwise."""

    type: EngineType = setting("simulated", "what answers: simulated or torch")
    hardware: str = setting(DEFAULT_HARDWARE, "a hardware profile that SimServe ships, or a .yaml file")
    memory_gb: Annotated[float, Field(gt=0)] | None = setting(None, "memory of each device in GB of 2^30 bytes")
    time_scale: Annotated[float, Field(gt=0)] = setting(1.0, "how much faster than real time; .inf answers at once")
    device: Literal["cpu", "cuda"] | None = setting(None, "where the torch engine runs; cuda if there is one")
    threads: Count | None = setting(None, "CPU threads of the torch engine (torch's choice, 1 for tiny models)")


class InferenceSection(Section):
    """Limits and habits that hold for all models."""

    max_total_tokens: Count | None = setting(None, "longest sequence, prompt and answer, of any model")
    max_input_tokens: Count | None = setting(None, "longest prompt; then 400")
    max_batch_size: Count | None = setting(None, "most sequences in one step (vLLM's choice)")
    streaming_default: bool = setting(False, "whether requests that do not say are streamed")
    optimize_first_token: bool = setting(False, "waiting prompts are computed before any answer goes on")

    @model_validator(mode="after")
    def _keys_agree(self) -> InferenceSection:
        if None not in (self.max_input_tokens, self.max_total_tokens) and (
            self.max_input_tokens >= self.max_total_tokens  # type: ignore[operator]
        ):
            raise contradiction("max_input_tokens must be less than max_total_tokens, which holds the answer too")
        return self


class AnswersSection(Section):
    """What simulated answers say, and how long they are."""

    mode: Literal["random", "echo", "dataset"] = setting(
        "random", "sentences, the question again, or answers from `dataset`"
    )
    dataset: Path | None = setting(None, "file of answers: .txt (one a line), .jsonl, or .json (ShareGPT's too)")
    length: str | None = setting(
        None,
        f"{SPECS}: how long random answers are, at most `max_tokens`; without it just as long as `max_tokens`, or"
        f" {USUAL_LENGTH} where a request has none",
    )
    reasoning: bool | None = setting(None, "whether models reason before they answer; by default those known to")

    @field_validator("length")
    @classmethod
    def _is_a_distribution(cls, length: str | None) -> str | None:
        if length is not None:
            try:
                parse_length(length, "the length")
            except WorkloadError as error:
                raise contradiction(str(error)) from None
        return length

    @model_validator(mode="after")
    def _keys_agree(self) -> AnswersSection:
        if self.mode == "dataset" and self.dataset is None:
            raise contradiction("mode is dataset, but there is no dataset")
        if self.dataset is not None and self.mode != "dataset":
            raise contradiction(f"dataset is for the mode dataset, and the mode is {self.mode}")
        if self.length is not None and self.mode != "random":
            raise contradiction(f"length is for random answers, and the mode is {self.mode}")
        return self


class FailuresSection(Section):
    """Failures on purpose, to see what a client makes of them."""

    enabled: bool | None = setting(None, "heed `X-Return-Error: <status>`; by default if a `rate` is given")
    rate: Annotated[float, Field(ge=0, le=1)] = setting(0.0, "share of requests that fail")
    statuses: Annotated[list[Annotated[int, Field(ge=400, le=599)]], Field(min_length=1)] = setting(
        [503], "with which status, drawn at random"
    )
    latency_jitter: SecondsFrom0 = setting(0.0, "hold each request up by a random time up to this before it is served")
    seed: int | None = setting(None, "makes the draws repeatable")

    @model_validator(mode="after")
    def _keys_agree(self) -> FailuresSection:
        if self.enabled is False and self.rate > 0:
            raise contradiction("enabled is false, but the rate is above 0")
        return self

    @property
    def on(self) -> bool:
        """Whether requests may fail on purpose."""
        return self.enabled if self.enabled is not None else self.rate > 0


class Settings(Section):
    """All there is to say about a server."""

    server: ServerSection = setting(ServerSection(), "")
    auth: AuthSection = setting(AuthSection(), "")
    logging: LoggingSection = setting(LoggingSection(), "")
    models: ModelsSection = setting(ModelsSection(), "")
    engine: EngineSection = setting(EngineSection(), "")
    cluster: ClusterSection = setting(ClusterSection(), "")
    inference: InferenceSection = setting(InferenceSection(), "")
    answers: AnswersSection = setting(AnswersSection(), "")
    failures: FailuresSection = setting(FailuresSection(), "")

    @model_validator(mode="after")
    def _there_is_an_engine_for_each_key(self) -> Settings:
        types = {entry.type or self.engine.type for entry in self.models.available.values()} or {self.engine.type}
        if types == {"torch"} and self.answers.model_fields_set:
            key = next(name for name in type(self.answers).model_fields if name in self.answers.model_fields_set)
            raise contradiction(f"answers.{key} means nothing to the torch engine; leave it out")
        for type_, keys in ONLY_OF.items():
            given = [key for key in keys if key in self.engine.model_fields_set]
            if given and type_ not in types:
                raise contradiction(f"engine.{given[0]} means nothing to the {types.pop()} engine; leave it out")
        return self

    @model_validator(mode="after")
    def _a_cluster_is_all_that_is_served(self) -> Settings:
        if not self.cluster.on:
            return self
        if self.engine.type == "torch":
            raise contradiction("engine.type is torch, and a cluster is simulated; leave one of them out")
        given = [key for key in NOT_OF_A_CLUSTER if key in self.models.model_fields_set]
        if given:
            raise contradiction(
                f"models.{given[0]} is not for a cluster, which serves the models of its groups; leave it out"
            )
        return self
