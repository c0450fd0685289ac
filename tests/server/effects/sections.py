"""What models say, who may ask, and how long things may take: keys whose effects show inside one process."""

from __future__ import annotations

from pathlib import Path

from server.effects.effect import MODEL, Effect, answer, card, engine, less, more, other, status, to
from server.effects.looks import (
    SECRET,
    answered_after_a_pause,
    bearer,
    device,
    draws_repeat,
    engine_type,
    header,
    is_held_up,
    model_of,
    reasoning,
    seconds_to_load,
    signed,
    slow_sender,
    slowest_ttft,
    states,
    states_at_the_start,
    statuses_at_once,
    streamed,
    text_of,
    threads,
    tokens_of,
    unloaded_after_a_while,
)
from server.serving import FAST
from simserve.resources import data_dir

HERE = Path(__file__).parent
SEVERAL = "engine: {time_scale: .inf}\nmodels: {available: {a: {path: facebook/opt-125m}, b: {path: facebook/opt-125m}}"
ONE = "engine: {time_scale: .inf}\nmodels: {available: {a: {path: facebook/opt-125m"
ADAPTED = "engine: {time_scale: .inf, enable_lora: true}\nmodels: {default: facebook/opt-125m"
TORCH = "engine: {type: torch, device: cpu}\nmodels: {default: simserve/tiny-chat}\n"


def keys(*fields: str, more: str = "") -> str:
    return f"{FAST}auth: {{keys: [{{{', '.join(('key: sk-x', *fields))}}}]{more}}}\n"


SERVER = {
    "server.timeout": Effect(
        f"{MODEL}engine: {{time_scale: 10}}\nserver: {{timeout: 10 ms}}",
        status(max_tokens=2000, prompt="x"),
        to(504),
        f"{MODEL}engine: {{time_scale: 10}}",
    ),
    "server.read_timeout": Effect(f"{FAST}server: {{read_timeout: 0.1}}", slow_sender(0.5), to(b"408")),
    "server.keep_alive_timeout": Effect(
        f"{FAST}server: {{keep_alive_timeout: 0.1}}", answered_after_a_pause, to(False)
    ),
    "server.max_body_size": Effect(f"{FAST}server: {{max_body_size: 1 kB}}", status(prompt="x " * 900), to(413)),
    "server.allowed_origins": Effect(
        f"{FAST}server: {{allowed_origins: [http://a.example]}}", header("vary"), to("Origin")
    ),
    "server.max_waiting_requests": Effect(
        f"{FAST}inference: {{max_batch_size: 1}}\nserver: {{max_waiting_requests: 1}}",
        statuses_at_once,
        to([200, 200, 503]),
        f"{FAST}inference: {{max_batch_size: 1}}",
    ),
}

AUTH = {
    "auth.enabled": Effect(keys(more=", enabled: false"), status(), to(200), keys()),
    "auth.keys": Effect(keys(), status(), to(401)),
    "auth.keys[].key": Effect(keys(), status(bearer("sk-x")), to(200), keys().replace("sk-x", "sk-y")),
    "auth.keys[].permissions": Effect(keys("permissions: [models]"), status(bearer("sk-x")), to(403), keys()),
    "auth.keys[].requests_per_minute": Effect(
        keys("requests_per_minute: 7"),
        header("x-ratelimit-limit-requests"),
        to("7"),
        keys(more=", requests_per_minute: 9"),
    ),
    "auth.keys[].tokens_per_minute": Effect(
        keys("tokens_per_minute: 700"),
        header("x-ratelimit-limit-tokens"),
        to("700"),
        keys(more=", tokens_per_minute: 9"),
    ),
    "auth.requests_per_minute": Effect(
        keys(more=", requests_per_minute: 7"), header("x-ratelimit-limit-requests"), to("7"), keys()
    ),
    "auth.tokens_per_minute": Effect(
        keys(more=", tokens_per_minute: 700"), header("x-ratelimit-limit-tokens"), to("700"), keys()
    ),
    "auth.secret_key": Effect(
        keys(more=f", secret_key: {SECRET}"),
        status(bearer(signed())),
        to(200),
        keys(more=f", secret_key: {SECRET[::-1]}"),
    ),
    "auth.store": Effect(
        keys(more=f", secret_key: {SECRET}, store: {HERE}/there-is-none.json"),
        status(bearer(signed())),
        to(401),
        keys(more=f", secret_key: {SECRET}"),
    ),
    "auth.open_paths": Effect(keys(more=", open_paths: [/v1/completions]"), status(), to(200), keys()),
}

MODELS = {
    "models.default": Effect(f"{SEVERAL}, default: b}}", answer(model_of), to("b"), f"{SEVERAL}}}"),
    "models.lora_modules": Effect(
        f"{ADAPTED}, lora_modules: ['law=org/law']}}", status(model="law"), to(200), f"{ADAPTED}}}"
    ),
    "models.served_names": Effect(
        f"{SEVERAL}, served_names: [gpt-4o]}}", answer(model_of), to("gpt-4o"), f"{SEVERAL}}}"
    ),
    "models.preload": Effect(
        f"{SEVERAL}, preload: [b]}}", states_at_the_start, to(["unloaded", "loaded"]), f"{SEVERAL}}}"
    ),
    "models.max_loaded": Effect(f"{SEVERAL}, max_loaded: 1}}", states, to(["unloaded", "loaded"]), f"{SEVERAL}}}"),
    "models.unload_timeout": Effect(
        f"{SEVERAL}, unload_timeout: 50 ms}}", unloaded_after_a_while, to(True), f"{SEVERAL}}}"
    ),
    "models.load_timeout": Effect(
        f"{SEVERAL}, disk_bandwidth_gb_per_s: 0.5, load_timeout: 50 ms}}".replace(".inf", "1"),
        status(model="b"),
        to(503),
        f"{SEVERAL}, disk_bandwidth_gb_per_s: 0.5}}".replace(".inf", "1"),
    ),
    "models.disk_bandwidth_gb_per_s": Effect(
        f"{MODEL.replace('}', ', disk_bandwidth_gb_per_s: 0.5}')}", seconds_to_load, more, MODEL
    ),
    "models.models_dir": Effect(
        f"engine: {{time_scale: .inf}}\nmodels: {{models_dir: {data_dir('models') / 'facebook'}}}",
        card("id"),
        to("opt-125m"),
        FAST,
    ),
    "models.available": Effect(f"{ONE}}}}}}}", card("id"), to("a")),
    "models.available.<name>.path": Effect(
        f"{ONE}}}}}}}".replace("opt-125m", "opt-6.7b"), engine("model"), to("facebook/opt-6.7b"), f"{ONE}}}}}}}"
    ),
    "models.available.<name>.type": Effect(
        "models: {available: {a: {path: simserve/tiny-chat, type: torch}}}",
        engine_type,
        to("torch"),
        "models: {available: {a: {path: simserve/tiny-chat}}}",
    ),
    "models.available.<name>.max_tokens": Effect(
        f"{ONE}, max_tokens: 99}}}}}}", card("max_model_len"), to(99), f"{ONE}}}}}}}"
    ),
    "models.available.<name>.hardware": Effect(
        f"{ONE}, hardware: L4}}}}}}", engine("hardware_profile"), to("L4"), f"{ONE}}}}}}}"
    ),
    "models.available.<name>.aliases": Effect(
        f"{ONE}, aliases: [other]}}}}}}", status(model="other"), to(200), f"{ONE}}}}}}}"
    ),
}

ENGINE = {
    "engine.type": Effect(TORCH, engine_type, to("torch"), "models: {default: simserve/tiny-chat}"),
    "engine.hardware": Effect(
        f"{MODEL}engine: {{hardware: L4, time_scale: .inf}}", engine("hardware_profile"), to("L4")
    ),
    "engine.memory_gb": Effect(f"{MODEL}engine: {{memory_gb: 10, time_scale: .inf}}", engine("kv_blocks"), less),
    "engine.time_scale": Effect(f"{MODEL}engine: {{time_scale: 50}}", engine("time_scale"), to(50.0)),
    "engine.device": Effect(TORCH.replace("device: cpu", "device: cuda"), device, other, TORCH),
    "engine.threads": Effect(TORCH.replace("device: cpu", "device: cpu, threads: 2"), threads, to(2), TORCH),
}

INFERENCE = {
    "inference.max_total_tokens": Effect(f"{FAST}inference: {{max_total_tokens: 100}}", card("max_model_len"), to(100)),
    "inference.max_input_tokens": Effect(
        f"{FAST}inference: {{max_input_tokens: 20}}", status(prompt=[5] * 21), to(400)
    ),
    "inference.max_batch_size": Effect(f"{FAST}inference: {{max_batch_size: 3}}", engine("max_num_seqs"), to(3)),
    "inference.streaming_default": Effect(
        f"{FAST}inference: {{streaming_default: true}}", streamed, to("text/event-stream")
    ),
    "inference.optimize_first_token": Effect(
        f"{FAST}inference: {{optimize_first_token: true}}".replace(".inf", ".inf, hardware: L4"),
        slowest_ttft,
        less,
        FAST.replace(".inf", ".inf, hardware: L4"),
    ),
}

ANSWERS = {
    "answers.mode": Effect(f"{FAST}answers: {{mode: echo}}", answer(text_of, prompt="say so"), to("say so")),
    "answers.dataset": Effect(
        f"{FAST}answers: {{mode: dataset, dataset: {HERE}/answers.txt}}",
        answer(text_of, prompt="?", max_tokens=50),
        to("This is the only answer."),
    ),
    "answers.length": Effect(f"{FAST}answers: {{length: '7'}}", answer(tokens_of, max_tokens=50), to(7)),
    "answers.reasoning": Effect(f"{FAST}answers: {{reasoning: true}}", reasoning, to(True)),
}

FAILURES = {
    "failures.enabled": Effect(f"{FAST}failures: {{enabled: true}}", status({"X-Return-Error": "418"}), to(418)),
    "failures.rate": Effect(f"{FAST}failures: {{rate: 1}}", status(), to(503)),
    "failures.statuses": Effect(
        f"{FAST}failures: {{rate: 1, statuses: [502]}}", status(), to(502), f"{FAST}failures: {{rate: 1}}"
    ),
    "failures.latency_jitter": Effect(f"{FAST}failures: {{latency_jitter: 10 hours, seed: 3}}", is_held_up, to(True)),
    "failures.seed": Effect(
        f"{FAST}failures: {{rate: 0.5, seed: 1}}", draws_repeat, to(True), f"{FAST}failures: {{rate: 0.5}}"
    ),
}

EFFECTS = {**SERVER, **AUTH, **MODELS, **ENGINE, **INFERENCE, **ANSWERS, **FAILURES}
