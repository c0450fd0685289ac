"""``sonnet``: lines of verse, the first of them the same in every prompt."""

from __future__ import annotations

import random
from statistics import fmean

from simserve.bench.datasets.base import Drawn, Order
from simserve.bench.sample import Sample
from simserve.errors import ConfigError, WorkloadError
from simserve.workload.text import SENTENCES

INSTRUCTION = "Pick as many lines as you can from these lines of verse:\n"


def draw_sonnet(order: Order) -> Drawn:
    """Prompts of at most ``sonnet_input_len`` tokens, of which about ``sonnet_prefix_len`` are shared.

    Lines come from --dataset-path, or from the sentences that ship with SimServe.
    """
    text = order.text() if order.path is not None else SENTENCES.read_text("utf-8")
    lines = [line + "\n" for line in text.splitlines() if line.strip()]
    if not lines:
        raise WorkloadError(f"{order.path} has no lines; give a text with one line of verse per line")
    count = order.counter.count
    wanted = int(order.settings.get("sonnet_input_len", 550))
    shared = int(order.settings.get("sonnet_prefix_len", 200))
    output = int(order.settings.get("sonnet_output_len", 150))
    per_line = fmean(map(count, lines))
    base = count(order.rendered(INSTRUCTION))
    if wanted <= base or shared > wanted:
        raise ConfigError(
            f"--sonnet-input-len must be above the instruction's {base} tokens and not below --sonnet-prefix-len"
        )
    in_all = round((wanted - base) / per_line)
    fixed = max(round((shared - base) / per_line), 0)
    rng = random.Random(order.seed)
    samples: list[Sample] = []
    for _ in range(order.count):
        chosen = lines[:fixed] + rng.choices(lines, k=max(in_all - fixed, 0))
        while (tokens := count(prompt := order.rendered(INSTRUCTION + "".join(chosen)))) > wanted:
            chosen.pop()  # longer lines than the average: one less
        samples.append(Sample(prompt, tokens, output, order.counter.is_exact))
    return Drawn(samples)
