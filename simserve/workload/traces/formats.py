"""Every trace format that SimServe reads, by name: a new one is a file beside this one and a line here."""

from __future__ import annotations

from simserve.workload.traces import azure, burstgpt, llmservingsim, mooncake, plain
from simserve.workload.traces.format import TraceFormat

FORMATS: dict[str, TraceFormat] = {
    format.name: format
    for format in (plain.FORMAT, azure.FORMAT, burstgpt.FORMAT, mooncake.FORMAT, llmservingsim.FORMAT)
}
