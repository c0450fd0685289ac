"""What a server is asked: every data set by its name on the command line.

A new one is a function from an :class:`Order` to what it draws, in a file beside this one, and a line here.
"""

from __future__ import annotations

from simserve.bench.datasets.base import Draw, Drawn, Order
from simserve.bench.datasets.burstgpt import draw_burstgpt
from simserve.bench.datasets.conversations import draw_sharegpt
from simserve.bench.datasets.custom import draw_custom, draw_spec_bench
from simserve.bench.datasets.hugging_face import draw_hugging_face
from simserve.bench.datasets.media import draw_random_audio, draw_random_mm
from simserve.bench.datasets.random_text import draw_prefix_repetition, draw_random
from simserve.bench.datasets.rerank import draw_random_rerank
from simserve.bench.datasets.sonnet import draw_sonnet
from simserve.bench.datasets.trace import draw_trace
from simserve.errors import ConfigError

DATASETS: dict[str, Draw] = {
    "random": draw_random,
    "sharegpt": draw_sharegpt,
    "sonnet": draw_sonnet,
    "burstgpt": draw_burstgpt,
    "custom": draw_custom,
    "custom_image": draw_custom,
    "custom_audio": draw_custom,
    "spec_bench": draw_spec_bench,
    "hf": draw_hugging_face,
    "prefix_repetition": draw_prefix_repetition,
    "prefix-repetition": draw_prefix_repetition,
    "timed_trace": draw_trace,
    "random-mm": draw_random_mm,
    "random-audio": draw_random_audio,
    "random-rerank": draw_random_rerank,
}

NEEDS = {"random-mm": "image", "random-audio": "audio", "custom_image": "image", "custom_audio": "audio",
         "random-rerank": "documents"}  # fmt: skip
"""What a backend must take for a data set to make sense."""


def draw_samples(name: str, order: Order) -> Drawn:
    """Draw from the data set of that name.

    Raises :class:`ConfigError` if there is none, or if the backend cannot take what it has, and
    :class:`simserve.errors.WorkloadError` for a file that cannot be read.
    """
    if name not in DATASETS:
        raise ConfigError(f"there is no data set '{name}'; choose one of {', '.join(DATASETS)}")
    need = NEEDS.get(name, "text")
    if need not in order.backend.takes:
        takes = " and ".join(sorted(order.backend.takes - {"ids", "batch"}))
        raise ConfigError(f"--dataset-name {name} has {need} and --backend {order.backend.name} takes {takes}")
    if int(order.settings.get("random_batch_size", 1)) > 1 and not {"batch", "documents"} & order.backend.takes:
        raise ConfigError(f"--random-batch-size is for embeddings and rerank, not for --backend {order.backend.name}")
    return DATASETS[name](order)


__all__ = ["DATASETS", "Drawn", "Order", "draw_samples"]
