"""Where jobs are done: in this process, in processes of this machine, or on a Ray cluster. The results are the same."""

from simserve.sweep.executors.base import Executor
from simserve.sweep.executors.local import InThisProcess, LocalProcesses

__all__ = ["Executor", "InThisProcess", "LocalProcesses"]
