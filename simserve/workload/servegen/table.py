"""How likely a client's lengths are, read from the text they come as."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError


@dataclass(frozen=True)
class LengthTable:
    """Probabilities by field, as text; ``where`` names the place in the files. Only what is drawn from is parsed."""

    where: str
    fields: dict[str, str]

    def chances(self, field: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """(lengths in tokens, weights) of ``input_tokens`` or ``output_tokens``.

        The text is a Python dictionary such as ``{50: 0.04, 51: 0.96}``. It is taken apart, never evaluated. Raises
        :class:`WorkloadError` if it is anything else.
        """
        text = self.fields.get(field, "{}").strip()
        try:
            pairs = [pair.split(":") for pair in text.removeprefix("{").removesuffix("}").split(",") if pair.strip()]
            lengths = np.array([int(length) for length, _ in pairs], dtype=np.int64)
            weights = np.array([float(weight) for _, weight in pairs])
        except (ValueError, OverflowError):
            raise self._error(field, "must be probabilities such as {50: 0.4, 51: 0.6}") from None
        if not lengths.size:
            raise self._error(field, "must not be empty, since the client sends requests then")
        if lengths.min() < 1 or weights.min() < 0 or not 0 < weights.sum() < math.inf:
            raise self._error(field, "must have lengths of at least 1 and probabilities of at least 0")
        return lengths, weights

    def _error(self, field: str, must: str) -> WorkloadError:
        return WorkloadError(f"{self.where}: {field} {must}; repair it")
