"""How many threads and which batch: the networks for photos in ONNX Runtime, without preprocessing.

Indexing: images per second of wall-clock time by batch, for one call at a time on 1 thread and on
all cores, and for one worker a core on 1 thread each, which share a session as `cbir index` does.
A single query: milliseconds on 1 thread and on all cores, where threads that wait for work either
spin or sleep. The inputs are noise: speed does not depend on what is in a picture. Each figure is
the fastest of several rounds, which other load disturbs least.

    python -m benchmarks inference
    python -m benchmarks.inference --only efficientnet-lite0 --rounds 9
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.setting import duration, heading, row
from cbir.descriptors.models import load_descriptor
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.descriptors.packaged import PACKAGED, packaged_installed
from cbir.files import content
from cbir.machine import usable_cores

BATCHES = (1, 8, 16, 32)
IMAGES = 64
ROUNDS = 5
CALLS = 60


def main(arguments: Sequence[str] = ()) -> None:
    """Print one table for indexing and one for a single query."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference")
    parser.add_argument("--only", default=",".join(filter(packaged_installed, PACKAGED)))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args(arguments)
    networks = {name: _descriptor(name) for name in asked.only.split(",")}
    cores = usable_cores()
    print(f"indexing: images/s, fastest of n={asked.rounds} rounds of {IMAGES} images\n")
    ways = ["1 thread", f"{cores} threads", f"{cores} workers of 1 thread"]
    print(heading(["network", "batch", *ways]))
    for name, descriptor in networks.items():
        values = _values(descriptor, IMAGES)
        alone, together = _session(descriptor, 1), _session(descriptor, cores)
        for batch in BATCHES:
            parts = [values[start : start + batch] for start in range(0, IMAGES, batch)]
            speeds: list[list[float]] = [[], [], []]
            for _ in range(asked.rounds):  # alternately, because other load comes and goes
                speeds[0].append(_speed(alone, parts, 1))
                speeds[1].append(_speed(together, parts, 1))
                speeds[2].append(_speed(alone, parts, cores))
            figures = [f"{max(some):.0f}" for some in speeds]
            print(row([name, str(batch), *figures]), flush=True)
    print(f"\na single query: ms, fastest of n={CALLS} calls\n")
    print(
        heading(["network", "1 thread", f"{cores} threads, spinning", f"{cores} threads, sleeping"])
    )
    for name, descriptor in networks.items():
        one = _values(descriptor, 1)
        times = [
            _milliseconds(_session(descriptor, *how), one)
            for how in ((1, True), (cores, True), (cores, False))
        ]
        print(row([name, *(f"{each:.1f}" for each in times)]), flush=True)


def _descriptor(name: str) -> OnnxDescriptor:
    descriptor = load_descriptor(name)
    assert isinstance(descriptor, OnnxDescriptor)
    return descriptor


def _values(descriptor: OnnxDescriptor, count: int) -> Any:
    card = descriptor.card.input
    noise = np.random.default_rng(0).integers(0, 256, (count, card.height, card.width, 3), np.uint8)
    return card.inputs(list(noise))


def _session(descriptor: OnnxDescriptor, threads: int, spinning: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    network = content(descriptor.files["model.onnx"])
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])


def _run(session: Any, values: Any) -> Any:
    return session.run(None, {session.get_inputs()[0].name: values})


def _speed(session: Any, parts: Sequence[Any], workers: int) -> float:
    with ThreadPoolExecutor(workers) as pool:
        seconds = duration(lambda: list(pool.map(lambda part: _run(session, part), parts)))
    return sum(map(len, parts)) / seconds


def _milliseconds(session: Any, values: Any) -> float:
    _run(session, values)
    return 1000 * min(duration(lambda: _run(session, values)) for _ in range(CALLS))


if __name__ == "__main__":
    main(sys.argv[1:])
