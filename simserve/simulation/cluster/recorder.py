"""Records of a cluster: as of one engine, and beside each request which member ended it, whose it was, and retries."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.latency import StepTimer
from simserve.metrics.records import Records, TokenGaps
from simserve.scheduling import Request
from simserve.simulation.features.speculative_recorder import SpeculativeRecorder
from simserve.simulation.recorder import Recorder

PLACE_ROW = struct.Struct("4d").pack
NOBODY = -1
"""In place of a member, for requests that no engine ended."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Beside each request of :class:`Records`: the member that ended it (-1: none), its tenant, and its retries."""

    member: Ints
    tenant: Ints
    retries: Ints


class GroupRecorder(Recorder):
    """Of all members of one group, whose step times are the same; ``member`` is the one whose run is noted next."""

    def __init__(
        self,
        peak_kv_blocks: Callable[[], int],
        timer: StepTimer,
        on_done: Callable[[int, float], None] | None = None,
        on_fold: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(None, timer, on_done)
        self.member = NOBODY
        self.moved_tokens = 0
        """Of answers, that became part of prompts when their requests went on elsewhere."""
        self._peak = peak_kv_blocks
        self._on_fold = on_fold
        """Called ever more seldom: when runs are summed up for the 1st, 2nd, 4th, 8th ... time."""
        self._folds = 0
        self._places = bytearray()

    def finish(self, request: Request, status: int) -> None:
        """See :meth:`Recorder.finish`; tokens that were moved into the prompt are the answer's again."""
        if request.moved_tokens:
            self.moved_tokens += give_back_moved(request)
        self._places += PLACE_ROW(request.request_id, self.member, request.tenant, request.retries)
        super().finish(request, status)

    def _fold(self) -> None:
        super()._fold()
        self._folds += 1
        if self._on_fold is not None and self._folds & (self._folds - 1) == 0:
            self._on_fold()

    def peak_kv_blocks(self) -> int:
        return self._peak()

    def places(self) -> npt.NDArray[np.float64]:
        """(row, member, tenant, retries) of each request, unsorted."""
        return np.frombuffer(self._places).reshape(-1, 4)


class SpeculativeGroupRecorder(SpeculativeRecorder, GroupRecorder):
    """Of a group whose members speculate."""


def give_back_moved(request: Request) -> int:
    """Make the tokens that were moved into the prompt the answer's again; how many these are."""
    moved, request.moved_tokens = request.moved_tokens, 0
    request.input_tokens -= moved
    request.produced_tokens += moved
    request.output_tokens += moved
    return moved


def merged_records(recorders: Sequence[GroupRecorder]) -> tuple[Records, Places]:
    """The rows of all groups in order of arrival."""
    parts = [recorder.records() for recorder in recorders]
    places = np.concatenate([recorder.places() for recorder in recorders])
    places = places[np.argsort(places[:, 0], kind="stable")]
    _, member, tenant, retries = places.T.astype(np.int64)
    found = Places(member, tenant, retries)
    if len(parts) == 1:
        return parts[0], found
    rows = np.concatenate([np.sort(recorder.places()[:, 0], kind="stable") for recorder in recorders])
    order = np.argsort(rows, kind="stable")
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])[order]
        for name in Records.__dataclass_fields__
        if name != "gaps"
    }
    return Records(**columns, gaps=_merged_gaps([part.gaps for part in parts])), found


def _merged_gaps(parts: list[TokenGaps]) -> TokenGaps:
    gaps, where = np.unique(np.concatenate([part.gap_s for part in parts]), return_inverse=True)
    counts = np.concatenate([part.count for part in parts])
    return TokenGaps(gaps, np.bincount(where, weights=counts, minlength=len(gaps)).astype(np.int64))
