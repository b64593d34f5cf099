"""Parses measure names in ir_measures' notation: `AP@100`, `nDCG@10`, `RR`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cbir.errors import CbirError, MissingExtraError
from cbir.wording import nearest

DEFAULT_MEASURES = ("nAP@100", "AP@100", "P@1", "P@10", "P@100", "RR@100")

MAX_RELEVANCE = 1000
"""The highest relevance level: trec_eval's run time grows with its square."""

_CUTOFF = re.compile(r"@(\d{1,9})")
_NEEDS_CUTOFF = ("nAP", "P", "R", "Success")
_MAY_HAVE_CUTOFF = (*_NEEDS_CUTOFF, "AP", "RR", "nDCG")
_FAMILIES = (  # no IPrec: trec_eval 9 and 10 round its recall levels differently
    *("AP", "nAP", "P", "R", "RR", "nDCG", "Rprec", "Bpref", "infAP", "Success"),
    *("SetP", "SetR", "SetF", "SetAP"),
)
_PARAMETERS = {"cutoff", "rel"}
_OTHER_NAMES = {
    "map": "AP",
    "map_cut": "AP",
    "nmap": "nAP",
    "precision": "P",
    "recall": "R",
    "mrr": "RR",
    "recip_rank": "RR",
    "ndcg_cut": "nDCG",
    "set_p": "SetP",
    "set_recall": "SetR",
    "set_f": "SetF",
    "set_map": "SetAP",
} | {family.lower(): family for family in _FAMILIES}


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    `name` is the canonical notation, `family` the part before brackets and `@`. `cutoff` is the
    number of ranks it uses, None for the whole ranking. Documents of relevance `rel` or higher
    count as relevant.
    """

    name: str
    family: str
    cutoff: int | None
    rel: int = 1


def parse_measures(names: Iterable[str]) -> tuple[Measure, ...]:
    """The measures called `names`, in that order, without duplicates.

    Known: AP, nAP@k, P@k, R@k, RR, nDCG, Rprec, Bpref, infAP, Success@k, SetP, SetR, SetF, SetAP;
    AP, RR and nDCG take an optional cut-off `@k`; `(rel=2)` sets the lowest relevant level. Raises
    `CbirError` for any other name, with a suggestion, and `MissingExtraError` for brackets without
    the `evaluation` extra, which reads them.
    """
    measures = {measure.name: measure for measure in map(_parse, names)}
    return tuple(measures.values())


def with_pairs(names: Iterable[str]) -> tuple[str, ...]:
    """`names` in canonical notation and order, each `AP@k` and `nAP@k` followed by the other.

    The two are easily confused, so they always appear together.
    """
    paired: dict[str, None] = {}
    for measure in parse_measures(names):
        paired[measure.name] = None
        if measure.family in ("AP", "nAP") and measure.cutoff is not None:
            name = measure.name
            paired[name.removeprefix("n") if measure.family == "nAP" else f"n{name}"] = None
    return tuple(paired)


def depth(names: Iterable[str]) -> int | None:
    """The deepest rank that the measures use; None if one of them uses the whole ranking."""
    cutoffs = [measure.cutoff for measure in parse_measures(names)]
    known = [cutoff for cutoff in cutoffs if cutoff is not None]
    return max(known, default=0) if len(known) == len(cutoffs) else None


def _parse(name: str) -> Measure:
    found = re.match(r"[A-Za-z]+", name)
    family = found[0] if found else ""
    rest = name[len(family) :]
    if family not in _FAMILIES or rest[:1] not in ("", "(", "@"):
        raise CbirError(f"unknown measure '{name}'", _nearest(name))
    if family in _NEEDS_CUTOFF and "@" not in name:
        raise CbirError(f"measure '{name}' needs a cut-off", f"write '{name}@10'")
    if "(" in name:
        return _parse_with_ir_measures(name, family)
    if not rest:
        return Measure(family, family, None)
    number = _CUTOFF.fullmatch(rest)
    if number is None:
        raise CbirError(f"measure '{name}' cannot be parsed", _nearest(name))
    if family not in _MAY_HAVE_CUTOFF:
        raise CbirError(f"measure '{name}': {family} has no cut-off", f"write '{family}'")
    cutoff = int(number[1])
    _check_cutoff(name, family, cutoff)
    return Measure(f"{family}@{cutoff}", family, cutoff)


def _parse_with_ir_measures(name: str, family: str) -> Measure:
    if family == "nAP":
        average_precision = _parse(name.removeprefix("n"))
        return replace(average_precision, name=f"n{average_precision.name}", family="nAP")
    measure = ir_measure(name)
    params: dict[str, Any] = measure.params
    if set(params) - _PARAMETERS:
        unknown = ", ".join(sorted(set(params) - _PARAMETERS))
        raise CbirError(f"measure '{name}': '{unknown}' cannot be set", "only rel can")
    cutoff = params.get("cutoff")
    _check_cutoff(name, family, cutoff)
    rel = params.get("rel", 1)
    if not 1 <= rel <= MAX_RELEVANCE:
        raise CbirError(f"measure '{name}': rel must be between 1 and {MAX_RELEVANCE}")
    return Measure(str(measure), family, cutoff, rel)


def _check_cutoff(name: str, family: str, cutoff: int | None) -> None:
    if cutoff is not None and cutoff < 1:
        raise CbirError(f"measure '{name}': a cut-off must be at least 1", f"write '{family}@10'")


def ir_measure(name: str) -> Any:
    """The ir_measures object called `name`, with checked parameters."""
    try:
        import ir_measures
        import pytrec_eval  # noqa: F401 - ir_measures needs it to compute anything
    except ImportError as error:
        raise MissingExtraError(f"measure {name}", "evaluation") from error
    try:
        measure = ir_measures.parse_measure(name)
        measure.validate_params()
    except (ValueError, NameError, AssertionError, KeyError, TypeError) as error:
        raise CbirError(f"measure '{name}' cannot be parsed", _nearest(name)) from error
    return measure


def _nearest(name: str) -> str:
    parts = re.match(r"([A-Za-z_]*?)_?(?:\(.*\))?[@_.]?(\d[\d.]*)?$", name)
    family, number = (parts[1], parts[2]) if parts else (name, None)
    likely = _OTHER_NAMES.get(nearest(family.lower(), _OTHER_NAMES) or "", "")
    if number is None and likely in _NEEDS_CUTOFF:
        number = "10"
    likely = f"{likely}@{number}" if likely and number else likely
    if likely in ("", name):
        return f"known measures: {', '.join(_FAMILIES)}, most with a cut-off as in nDCG@10"
    return f"did you mean '{likely}'?"
