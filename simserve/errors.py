"""Every error SimServe raises on purpose: one root, one sentence each, saying what to do.

The command line turns any of them into that sentence and exit code 2; the server into an OpenAI error object.
"""

from __future__ import annotations


class SimServeError(Exception):
    """Root of all errors caused by input: the message is one sentence for a person."""


class ConfigError(SimServeError):
    """An option, or a combination of options, that cannot be honoured."""


class ModelError(SimServeError):
    """A model that is unknown, or whose ``config.json`` cannot be understood."""


class HardwareError(SimServeError):
    """A hardware profile that is unknown or malformed."""


class WorkloadError(SimServeError):
    """A trace or synthetic workload that cannot be read; names the file and the line."""


class CapacityError(SimServeError):
    """A model that does not fit the memory of the hardware it was asked to run on."""


class RequestError(SimServeError):
    """One request that cannot be served; every other request goes on."""


class EngineError(SimServeError):
    """An engine that cannot go on: nothing is wrong with the request."""


class OverloadedError(SimServeError):
    """A request that an engine takes no more of now: nothing is wrong with it, and later it may be taken."""


class ReplicaError(EngineError):
    """A request whose replica has failed, or that no replica is left for."""


class ServerError(SimServeError):
    """A server of somebody else's that cannot be reached, or does not answer as its API promises."""
