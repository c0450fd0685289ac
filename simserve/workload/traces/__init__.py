"""Traces of requests, recorded elsewhere, as workloads: one file per format."""

from __future__ import annotations

from simserve.workload.traces.formats import FORMATS
from simserve.workload.traces.read import is_address, keep_trace, read_trace

__all__ = ["FORMATS", "is_address", "keep_trace", "read_trace"]
