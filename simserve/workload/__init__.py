"""Which requests arrive when, and what they say: traces, synthetic workloads, tokenisation and simulated text.

The library ``tokenizers`` is imported when a tokenizer is loaded, not before.
"""

from __future__ import annotations

from simserve.workload.arrivals import poisson_arrivals
from simserve.workload.chat import render_chat
from simserve.workload.prefix import block_hashes
from simserve.workload.synthetic import synthetic_workload
from simserve.workload.text import Answer, SyntheticText
from simserve.workload.tokenizer import Tokenizer, load_tokenizer
from simserve.workload.traces import read_trace
from simserve.workload.workload import PrefixUnits, Workload

__all__ = [
    "Answer",
    "PrefixUnits",
    "SyntheticText",
    "Tokenizer",
    "Workload",
    "block_hashes",
    "load_tokenizer",
    "poisson_arrivals",
    "read_trace",
    "render_chat",
    "synthetic_workload",
]
