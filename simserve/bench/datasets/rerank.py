"""``random-rerank``: one query, and batches of documents to order by it."""

from __future__ import annotations

from dataclasses import replace

from simserve.bench.datasets.base import Drawn, Order
from simserve.bench.datasets.random_text import draw_random
from simserve.bench.sample import Sample
from simserve.errors import ConfigError

SEPARATOR_TOKENS = 1


def draw_random_rerank(order: Order) -> Drawn:
    """``count`` documents in batches; query and document share ``random_input_len``, with a separator for each.

    With ``no_reranker`` the server is no cross-encoder and adds no separators.
    """
    settings = order.settings
    batch = int(settings.get("random_batch_size", 1))
    total = int(settings.get("random_input_len", 1024))
    separators = 0 if settings.get("no_reranker") else SEPARATOR_TOKENS
    query_tokens = total // 2 - separators
    document_tokens = total - total // 2 - separators
    if batch < 1 or query_tokens < 1 or document_tokens < 1:
        raise ConfigError("a rerank request needs a query and documents: raise --random-input-len or the batch size")
    plain = settings | {"random_batch_size": 1, "random_prefix_len": 0, "random_output_len": 1}
    query = draw_random(
        replace(order, count=1, settings=plain | {"random_input_len": query_tokens, "random_range_ratio": 0.0})
    )
    documents = draw_random(replace(order, seed=order.seed + 1, settings=plain | {"random_input_len": document_tokens}))
    (asked,) = query.samples
    samples = []
    for start in range(0, len(documents.samples), batch):
        group = documents.samples[start : start + batch]
        tokens = sum(one.input_tokens + asked.input_tokens for one in group)
        samples.append(Sample(asked.prompt, tokens, 0, asked.is_exact, documents=[str(one.prompt) for one in group]))
    return Drawn(samples, notes=documents.notes)
