"""Records are renamed one by one without replacing one that is still to be renamed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cbir.index.renaming import in_groups


@given(st.permutations(range(12)), st.integers(0, 12), st.integers(0, 12))
def test_one_by_one_gives_what_all_at_once_gives(order: list[int], count: int, shift: int) -> None:
    """Any injective renaming of `count` of the records 0 to 11 to new ids."""
    renamed = {str(old): str(new + shift) for old, new in enumerate(order[:count])}
    records = {str(n): f"record {n}" for n in range(12)}
    expected = {name: kept for name, kept in records.items() if name not in renamed}
    expected.update({new: records[old] for old, new in renamed.items()})
    groups = list(in_groups(renamed))
    assert sorted(old for group in groups for old in group) == sorted(renamed)
    for group in groups:
        taken = {old: records.pop(old) for old in group}
        records.update({renamed[old]: record for old, record in taken.items()})
    assert records == expected
