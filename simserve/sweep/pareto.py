"""Runs that no other run beats in everything."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points for which no other has both coordinates as low and one lower; by the first coordinate."""
    front: list[int] = []
    lowest = float("inf")
    for place in sorted(range(len(points)), key=lambda at: points[at]):
        if points[place][1] < lowest:
            front.append(place)
            lowest = points[place][1]
    return front
