"""The search space of a tuning run: a TOML file of settings, and the trials drawn from it."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cbir.errors import CbirError
from cbir.files import read_regular
from cbir.training.network.settings import TrainSettings, settings_for
from cbir.wording import counted, did_you_mean

DEFAULT_SPACE = Path(__file__).with_name("search_space.toml")
KINDS = ("between", "log", "times")
ATTEMPTS = 100
"""How often a trial is drawn again that repeats another, or whose settings exclude each other."""

_DEFAULTS = {field.name: field.default for field in fields(TrainSettings)}
_NOT_HERE = {
    "epochs": "--epochs sets it",
    "seed": "--seed sets it",
    "teacher": "tune without a teacher, and train the best trial with one",
}
_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
}


@dataclass(frozen=True)
class Span:
    """Values from `low` to `high`, or with the kind "times" factors; KINDS spread differently."""

    kind: str
    low: float
    high: float


Entry = list[Any] | Span
Pick = Callable[[Entry, Any], Any]


@dataclass(frozen=True)
class SearchSpace:
    """Settings by name: `fixed` values, and what is `searched`."""

    fixed: dict[str, Any]
    searched: dict[str, Entry]


def read_space(path: Path = DEFAULT_SPACE) -> SearchSpace:
    """The search space in the TOML file `path`.

    Raises `CbirError` if the file cannot be read, or holds anything but settings.
    """
    try:
        entries = tomllib.loads(read_regular(path).decode())
    except OSError as error:
        raise CbirError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # no TOML, or not even text
        reason = str(error).splitlines()[0]
        raise CbirError(
            f"{path} is no TOML: {reason}", "write lines such as: width = [1.0, 1.5]"
        ) from error
    fixed: dict[str, Any] = {}
    searched: dict[str, Entry] = {}
    for name, entry in entries.items():
        _require_setting(name, path)
        if name in _NOT_HERE:
            raise CbirError(f"{path} names {name}", f"leave it out: {_NOT_HERE[name]}")
        if isinstance(entry, dict | list):
            searched[name] = _entry(name, entry, path)
        else:
            fixed[name] = _typed(name, entry, path)
    if "size" in searched:
        raise CbirError(f"{path} searches size", "images are read once: give one size")
    if not searched:
        raise CbirError(f"{path} leaves nothing to search", "write lists: width = [1.0, 1.5]")
    return SearchSpace(fixed, searched)


def draw_trials(space: SearchSpace, count: int, images: int, **given: Any) -> list[TrainSettings]:
    """The settings of `count` different trials on `images` training images.

    `given` are settings that options choose; their seed is also that of the draw. The first trial
    takes the defaults as far as the space allows them. Raises `CbirError` for impossible values,
    and if the space has too few different trials.
    """
    for name in given:
        if name in space.fixed or name in space.searched:
            raise CbirError(f"the search space has a {name}, too", f"leave out --{name}")
    given = {**space.fixed, **given}
    for name, entry in space.searched.items():
        values = entry if isinstance(entry, list) else [entry.low, entry.high]
        for value in [] if _is_factor(entry) else values:
            settings_for(images, **given, **{name: value})
    random = np.random.default_rng(given["seed"])
    trials = [_settings(space, images, given, _nearest)]
    while len(trials) < count:
        trials.append(_another(space, images, given, trials, random))
    return trials


def settings_from(path: Path) -> dict[str, Any]:
    """The settings in `path`, the best.json of a tuning run, by name.

    Raises `CbirError` if the file cannot be read or is damaged, or if a setting is unknown or has
    an impossible value.
    """
    hint = "give the best.json of cbir tune"
    try:
        stored = json.loads(read_regular(path))
    except OSError as error:
        raise CbirError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except ValueError as error:
        raise CbirError(f"{path} is no JSON, or damaged", hint) from error
    settings = stored.get("settings") if isinstance(stored, dict) else None
    if not isinstance(settings, dict) or not settings:
        raise CbirError(f"{path} holds no settings", hint)
    for name in settings:
        _require_setting(name, path)
    values = {name: _typed(name, value, path) for name, value in settings.items()}
    TrainSettings(**values)
    return values


def _another(
    space: SearchSpace,
    images: int,
    given: Mapping[str, Any],
    trials: list[TrainSettings],
    random: np.random.Generator,
) -> TrainSettings:
    """A random trial that is none of `trials`."""
    refused = CbirError(
        f"the search space has no more than {counted(len(trials), 'different trial')}",
        f"choose --trials {len(trials)}, or widen the space",
    )
    for _ in range(ATTEMPTS):
        try:
            drawn = _settings(space, images, given, partial(_random, random))
        except CbirError as error:  # settings that exclude each other
            refused = error
            continue
        if drawn.recorded() not in [trial.recorded() for trial in trials]:
            return drawn
    raise refused


def _settings(
    space: SearchSpace, images: int, given: Mapping[str, Any], pick: Pick
) -> TrainSettings:
    """Settings with each searched value as `pick` chooses it from its entry and its default."""
    chosen = dict(given)
    # Factors come last: defaults such as the learning rate's depend on other settings.
    for factors in (False, True):
        defaults = settings_for(images, **chosen)
        for name, entry in space.searched.items():
            if _is_factor(entry) == factors:
                chosen[name] = pick(entry, getattr(defaults, name))
    return settings_for(images, **chosen)


def _nearest(entry: Entry, default: Any) -> Any:
    """The default; where the entry does not allow it, the first of a list or the end of a span."""
    if isinstance(entry, list):
        return default if default in entry else entry[0]
    if entry.kind == "times":
        return type(default)(default * min(max(1.0, entry.low), entry.high))
    return type(default)(min(max(default, entry.low), entry.high))


def _random(random: np.random.Generator, entry: Entry, default: Any) -> Any:
    if isinstance(entry, list):
        return entry[random.integers(len(entry))]
    if entry.kind == "between" and isinstance(default, int):
        return int(random.integers(int(entry.low), int(entry.high), endpoint=True))
    if entry.kind == "between":
        drawn = random.uniform(entry.low, entry.high)
    else:
        drawn = math.exp(random.uniform(math.log(entry.low), math.log(entry.high)))
    value = drawn * default if entry.kind == "times" else drawn
    # Four digits, which a table can show in full.
    return round(value) if isinstance(default, int) else float(f"{value:.4g}")


def _is_factor(entry: Entry) -> bool:
    return isinstance(entry, Span) and entry.kind == "times"


def _require_setting(name: str, path: Path) -> None:
    if name not in _DEFAULTS:
        raise CbirError(f"{path}: unknown setting '{name}'", did_you_mean(name, _DEFAULTS))


def _entry(name: str, entry: Any, path: Path) -> Entry:
    if isinstance(entry, list) and entry:
        return [_typed(name, value, path) for value in entry]
    [(kind, ends)] = entry.items() if isinstance(entry, dict) and len(entry) == 1 else [("", [])]
    if kind not in KINDS or not isinstance(ends, list) or len(ends) != 2:
        ranges = ", ".join(f"{{ {kind} = [a, b] }}" for kind in KINDS)
        raise CbirError(
            f"{path}: {name} is neither a list of values nor a range",
            f"write {name} = [a, b, c], or one of {ranges}",
        )
    if type(_DEFAULTS[name]) not in (int, float):
        raise CbirError(f"{path}: {name} has no range", f"write {name} = [a, b, c]")
    of_ends = float if kind == "times" else type(_DEFAULTS[name])
    low, high = (_typed(name, end, path, of_ends) for end in ends)
    if not low < high or (kind != "between" and low <= 0):
        wanted = "rise" if kind == "between" else "rise, and lie above 0"
        raise CbirError(f"{path}: the ends of {name} have to {wanted}", f"not {low:g}, {high:g}")
    return Span(kind, low, high)


def _typed(name: str, value: Any, path: Path, wanted: type | None = None) -> Any:
    """Check that `value` has the type `wanted`, by default that of the setting, and return it.

    Integers are accepted for float settings. Raises `CbirError` for another type, or NaN.
    """
    wanted = wanted or type(_DEFAULTS[name])
    if wanted is tuple and isinstance(value, list):
        return tuple(value)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted or value != value:
        raise CbirError(
            f"{path}: {name} = {value!r} is not possible", f"choose {_TYPE_NAMES[wanted]}"
        )
    return value
