"""What ``simserve serve`` can be told: defaults < YAML file < environment < command line.

``sections`` has every key, ``layers`` puts the sources over each other, ``files`` reads the YAML.
"""

from __future__ import annotations

from simserve.server.settings.cluster import ClusterSection
from simserve.server.settings.layers import Layer, command_line_layer, environment_layer, file_layer
from simserve.server.settings.load import load_settings
from simserve.server.settings.sections import (
    AnswersSection,
    AuthSection,
    AvailableModel,
    EngineSection,
    FailuresSection,
    InferenceSection,
    LoggingSection,
    ModelsSection,
    ServerSection,
    Settings,
)

__all__ = [
    "AnswersSection",
    "AuthSection",
    "AvailableModel",
    "ClusterSection",
    "EngineSection",
    "FailuresSection",
    "InferenceSection",
    "Layer",
    "LoggingSection",
    "ModelsSection",
    "ServerSection",
    "Settings",
    "command_line_layer",
    "environment_layer",
    "file_layer",
    "load_settings",
]
