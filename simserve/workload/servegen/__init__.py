"""ServeGen client pools: how often and what each client of a real service asks, as laws from which requests are drawn.

https://github.com/alibaba/ServeGen. For client ``i`` there are ``chunk-i-trace.csv``, with a row
``start_s,rate,cv,law,shape,scale`` for every 600 s (all 0 and no law where the client is silent), and
``chunk-i-dataset.json``, with probabilities of ``input_tokens`` and ``output_tokens`` from each of its times on.
Reasoning is part of the output, and ``reason_ratio`` only says how much; pools with images, audio or video are refused.
"""

from __future__ import annotations

from simserve.workload.servegen.pool import ClientPool
from simserve.workload.servegen.read import is_client_pool, read_client_pool

__all__ = ["ClientPool", "is_client_pool", "read_client_pool"]
