from __future__ import annotations

import math

import pytest

pytestmark = pytest.mark.training


def test_one_cycle_rises_to_its_peak_and_falls_to_zero() -> None:
    from cbir.training.network.schedule import rate_at

    rates = [rate_at(step, 100, "one-cycle", 0.2) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[10] == pytest.approx(0.6)
    assert max(rates) == rates[20] == 1
    assert rates[60] == pytest.approx(0.5)
    assert rates[100] == 0


def test_cosine_falls_along_half_a_cosine() -> None:
    from cbir.training.network.schedule import rate_at

    assert [rate_at(step, 100, "cosine", 0) for step in (0, 25, 50, 100)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, 0]
    )
