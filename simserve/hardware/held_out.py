"""How far off a profile's curves are on measurements that they were not fitted to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from simserve.hardware.parts import Part


class HeldOut(Part):
    """Absolute relative error on measured points that the fit never saw: ``of`` says how they were chosen."""

    of: Literal["points", "shapes", "steps", "models"]
    """Half of the points at random, whole shapes (matrix shapes, head configurations), whole steps between those of
    the grid, or all steps of a model predicted from another's."""
    points: Annotated[int, Field(ge=1)]
    median: Annotated[float, Field(ge=0)]
    p95: Annotated[float, Field(ge=0)]
    summed_p90: Annotated[float, Field(ge=0)] | None = None
    """90th percentile of the error of a few such points' sum, as an engine's step sums its operators."""
