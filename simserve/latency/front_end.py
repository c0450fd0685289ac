"""What the processes in front of an engine spend on a request: HTTP, tokenising, detokenising, streaming.

A front end is a server with capacity: one asyncio process in vLLM V1, however fast the engine behind it is. No operator
table holds its costs. They come from published runs in which it, and not the device, was the limit, and are known to a
factor of two: they go with the processor, and with how many tokens a busy process sends in one message.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simserve.errors import ConfigError

NONE = "none"
FRONT_END = 1.0
"""Uncertainty of the costs, as in :mod:`simserve.hardware.uncertainty`: twice as much, or half."""


@dataclass(frozen=True)
class FrontEndCosts:
    """Seconds of one process for a request, each token of its prompt and each token of its answer.

    With ``own_output_process`` the answers go out through another process, which does not keep requests waiting.
    """

    request_s: float
    prompt_token_s: float
    output_token_s: float
    own_output_process: bool = False

    def times(self, factor: float) -> FrontEndCosts:
        """The same on a host that takes ``factor`` times as long."""
        costs = self.request_s * factor, self.prompt_token_s * factor, self.output_token_s * factor
        return FrontEndCosts(*costs, self.own_output_process)

    def ingest_s(self, prompt_tokens: int) -> float:
        """Until the engine has the request."""
        return self.request_s + self.prompt_token_s * prompt_tokens

    def work_s(self, requests: int, prompt_tokens: int, output_tokens: int) -> float:
        """Of all of so many."""
        return self.request_s * requests + self.prompt_token_s * prompt_tokens + self.output_token_s * output_tokens


VLLM_V1 = FrontEndCosts(request_s=4e-3, prompt_token_s=2e-6, output_token_s=45e-6)
"""vLLM V1's API server.

Per request and per output token: the solution (3.9 ms, 43 us) of two runs whose API servers are taken to have been
full, as small models kept requests waiting for seconds; both in github.com/vllm-project/vllm. Pull request 17546 (May
2025): two A100 behind one process do 76.5 requests/s of 221 and about 200 tokens, and more behind more processes. 41181
(April 2026): four processes do 740 requests/s of 40 and 32 tokens. BLIS (github.com/inference-sim), fitted to other
runs, has 46 us per output token, and 1.8-4.4 us per prompt token for Llama-3.1-8B; a tokenizer of 32,000 words alone
took 0.9-3.7 us per prompt token where this was written.
"""

SGLANG = FrontEndCosts(request_s=4e-3, prompt_token_s=2e-6, output_token_s=26e-6, own_output_process=True)
"""SGLang's tokenizer manager and its detokenizer, a process of its own.

Per output token: one detokenizer behind eight replicas passed on 5,122,821 tokens in 133 s
(github.com/sgl-project/sglang, pull request 9970, September 2025). No figure was found for the rest; the tokenizer
manager is built of what vLLM's API server is built of, and costs as much here.
"""

FRONT_ENDS = {"vllm-v1": VLLM_V1, "sglang": SGLANG}
"""What ``--front-end`` takes beside none and costs of your own."""


def front_end_named(name: str) -> FrontEndCosts | None:
    """The costs of ``name``: none, a name in :data:`FRONT_ENDS`, or ``MS:US:US`` as in ``4:2:45``.

    Those are ms per request and us per token of prompt and answer. Raises :class:`ConfigError` for anything else.
    """
    if name == NONE:
        return None
    if name in FRONT_ENDS:
        return FRONT_ENDS[name]
    try:
        request_ms, prompt_us, output_us = (float(part) for part in name.split(":"))
    except ValueError:
        names = ", ".join((NONE, *FRONT_ENDS))
        raise ConfigError(
            f"--front-end {name} is not known; choose one of {names}, or give ms per request and us per token of "
            "prompt and of answer, as in 4:2:45"
        ) from None
    if not all(0 <= cost < math.inf for cost in (request_ms, prompt_us, output_us)):
        raise ConfigError(f"--front-end {name} holds a cost that is not a number of at least 0")
    return FrontEndCosts(request_ms * 1e-3, prompt_us * 1e-6, output_us * 1e-6)
