"""Every trace format that SimServe reads, by name: a new one is a file beside this one and a line here.

The first whose columns are all there is taken, so one that has another's columns and more comes before it.
"""

from __future__ import annotations

from simserve.workload.traces import azure, burstgpt, llmservingsim, mooncake, plain, served
from simserve.workload.traces.format import TraceFormat

FORMATS: dict[str, TraceFormat] = {
    format.name: format
    for format in (served.FORMAT, plain.FORMAT, azure.FORMAT, burstgpt.FORMAT, mooncake.FORMAT, llmservingsim.FORMAT)
}
