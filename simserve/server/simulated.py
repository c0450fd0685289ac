"""All that it takes to serve one simulated model: engine, tokenizer and text, put together."""

from __future__ import annotations

from collections.abc import Sequence

from simserve.config import EngineOptions
from simserve.engines import Engine, SimulatedEngine
from simserve.hardware import HardwareProfile
from simserve.models import ModelSpec
from simserve.server.answers.habits import is_reasoning_model
from simserve.server.answers.writer import PLAIN, Habits
from simserve.server.embeddings import SimulatedEmbedder
from simserve.server.media import media_rules
from simserve.server.service import Service
from simserve.server.simulated_plans import SimulatedPlanner
from simserve.simulation import prepare
from simserve.workload import SyntheticText, load_tokenizer


def simulated_service(
    model: ModelSpec,
    hardware: HardwareProfile,
    options: EngineOptions,
    time_scale: float,
    model_names: Sequence[str] = (),
    habits: Habits = PLAIN,
) -> Service:
    """A service that answers with the timing of ``model`` on ``hardware``.

    It goes by ``model_names``, or by the model's own name if there are none. Raises
    :class:`simserve.errors.SimServeError` if the model does not fit or cannot be read.
    """
    engine = SimulatedEngine(prepare(model, hardware, options), time_scale)
    return simulated_over(model, engine, model_names, habits)


def simulated_over(
    model: ModelSpec,
    engine: Engine,
    model_names: Sequence[str] = (),
    habits: Habits = PLAIN,
    *,
    reasons: bool | None = None,
) -> Service:
    """The same for an engine that is there already, in this process or in another one.

    ``reasons`` says whether the model reasons before it answers, None that its name tells.
    """
    tokenizer = load_tokenizer(model.path)
    vocab_size = max(model.vocab_size, tokenizer.vocab_size)
    planner = SimulatedPlanner(
        model=model.name,
        tokenizer=tokenizer,
        text=SyntheticText(tokenizer),
        max_model_len=engine.max_model_len,
        vocab_size=vocab_size,
        habits=habits,
        media=media_rules(model.path, vocab_size),
        reasons=is_reasoning_model(model.name) if reasons is None else reasons,
    )
    embedder = SimulatedEmbedder(engine, model.hidden_size)
    return Service(engine, planner, embedder, list(model_names) or [model.name], model.name)
