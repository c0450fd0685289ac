"""The real engine: a small transformer runtime on torch, driven by the scheduler that the simulation has."""

from __future__ import annotations
