"""The learning rate over a training run."""

from __future__ import annotations

import math

FIRST = 0.2


def rate_at(step: int, steps: int, schedule: str, warm_up: float) -> float:
    """The learning rate at `step` of `steps`, as a share of its peak.

    It rises linearly from a fifth during `warm_up` (share of the steps), and falls to zero:
    linearly ("one-cycle") or along half a cosine ("cosine").
    """
    peak = max(1, int(steps * warm_up)) if warm_up else 0
    if step < peak:
        return FIRST + (1 - FIRST) * step / peak
    done = (step - peak) / max(1, steps - peak)
    falling = 1 - done if schedule == "one-cycle" else (1 + math.cos(math.pi * done)) / 2
    return max(0.0, falling)
