"""Keys that put a cluster in the place of one engine."""

from __future__ import annotations

from pathlib import Path

from server.effects.effect import Effect, at_once, other, to
from server.serving import FAST, serving

HERE = Path(__file__).parent
TWO = f"{FAST}cluster: {{replicas: 2"
SIX = [{"max_tokens": 5, "user": "the same", "prompt": f"number {at}"} for at in range(6)]


async def served(text: str) -> list[int]:
    """How many of six requests of one user, which come at the same instant, each replica served."""
    async with serving(text) as client:
        await at_once(client, SIX)
        now = await client.get("/status")
        return [replica["completed_requests"] for replica in now.get("replicas", [now])]


async def names(text: str) -> list[str]:
    """Of all replicas."""
    async with serving(text) as client:
        return [replica["name"] for replica in (await client.get("/status")).get("replicas", [])]


EFFECTS = {
    "cluster.file": Effect(
        f"{FAST}cluster: {{file: {HERE / 'cluster.yaml'}}}", names, to(["a/0", "a/1", "b/0", "b/1", "b/2"])
    ),
    "cluster.replicas": Effect(f"{FAST}cluster: {{replicas: 3}}", served, to([2, 2, 2])),
    "cluster.router": Effect(f"{TWO}, router: session-affinity}}", served, other, f"{TWO}}}"),
    "cluster.router_staleness": Effect(
        f"{TWO}, router: least-requests, router_staleness: 10 s}}", served, other, f"{TWO}, router: least-requests}}"
    ),
}
