"""Which requests arrive when, and what they say: traces, synthetic workloads, tokenisation and simulated text.

The library ``tokenizers`` is imported when a tokenizer is loaded, not before.
"""

from __future__ import annotations

from simserve.workload.adapters import AdapterChoice
from simserve.workload.arrivals import ArrivalProcess, BurstArrivals, RampArrivals, SteadyArrivals
from simserve.workload.chat import render_chat
from simserve.workload.lengths import (
    ConstantLength,
    EmpiricalLength,
    LengthDistribution,
    LognormalLength,
    UniformLength,
    ZipfLength,
    parse_length,
)
from simserve.workload.prefix import block_hashes, prefix_from_hits
from simserve.workload.servegen import ClientPool, is_client_pool, read_client_pool
from simserve.workload.sessions import Sessions, draw_sessions
from simserve.workload.streams import random_streams
from simserve.workload.synthetic import synthetic_workload
from simserve.workload.text import Answer, SyntheticText
from simserve.workload.think_time import ThinkTime, parse_think_time
from simserve.workload.tokenizer import Tokenizer, load_tokenizer
from simserve.workload.traces import read_trace
from simserve.workload.transform import cut_window, drop_long_prompts, scale_rate, speed_up
from simserve.workload.workload import PrefixUnits, Workload

__all__ = [
    "AdapterChoice",
    "Answer",
    "ArrivalProcess",
    "BurstArrivals",
    "ClientPool",
    "ConstantLength",
    "EmpiricalLength",
    "LengthDistribution",
    "LognormalLength",
    "PrefixUnits",
    "RampArrivals",
    "Sessions",
    "SteadyArrivals",
    "SyntheticText",
    "ThinkTime",
    "Tokenizer",
    "UniformLength",
    "Workload",
    "ZipfLength",
    "block_hashes",
    "cut_window",
    "draw_sessions",
    "drop_long_prompts",
    "is_client_pool",
    "load_tokenizer",
    "parse_length",
    "parse_think_time",
    "prefix_from_hits",
    "random_streams",
    "read_client_pool",
    "read_trace",
    "render_chat",
    "scale_rate",
    "speed_up",
    "synthetic_workload",
]
