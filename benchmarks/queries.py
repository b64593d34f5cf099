"""One query at a time over 50,000 images: in process, over HTTP, from a cold shell."""

from __future__ import annotations

import http.client
import re
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

from benchmarks.setting import cbir_command, cifar10_index, median_ms, test_files
from cbir.descriptors.contract import describe, prepare
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.images.decode import decode
from cbir.search.searcher import Searcher

QUERIES = 500
COLD_STARTS = 9


def main() -> None:
    """Print medians, compared with the bare model and with each other."""
    place = cifar10_index()
    files = test_files(QUERIES)
    searcher = Searcher.open(place)
    descriptor = searcher.descriptor
    assert isinstance(descriptor, OnnxDescriptor)
    batches = [decode(data)[None] for data in files]
    searcher.search(files[0])
    descriptor.network.outputs(np.ascontiguousarray(batches[0]))
    model, whole = [], []
    for data, batch in zip(files, batches, strict=True):
        started = time.perf_counter()
        descriptor.network.outputs(batch)
        between = time.perf_counter()
        searcher.search(data)
        model.append(between - started)
        whole.append(time.perf_counter() - between)
    model_ms, whole_ms = (statistics.median(times) * 1000 for times in (model, whole))
    limit = 1.5 * model_ms + 1
    print(f"n={len(files)}, {searcher.index.count():,} images, exact, k=10, medians")
    print(f"bare model, batch 1                   {model_ms:.2f} ms")
    print(f"decode + describe + search            {whole_ms:.2f} ms (target {limit:.2f})")
    print(f"  of it {_parts(searcher, files[0])}")
    searcher.close()
    http_ms = _over_http(place, files)
    print(f"POST /search, JSON                    {http_ms:.2f} ms (target {whole_ms + 3:.2f})")
    cold_s = _cold(place, files[0])
    print(f"cold cbir search, n={COLD_STARTS}                 {cold_s:.2f} s (target 0.9)")


def _parts(searcher: Searcher, data: bytes) -> str:
    image = decode(data)
    small = [prepare(searcher.descriptor, image)]
    vector = describe(searcher.descriptor, small)
    [found] = searcher.index.search(vector, 10)
    parts = {
        "decode": median_ms(lambda: decode(data), 200),
        "describe": median_ms(lambda: describe(searcher.descriptor, small), 200),
        "search": median_ms(lambda: searcher.index.search(vector, 10), 200),
        "records": median_ms(lambda: searcher.hits(found), 200),
    }
    return ", ".join(f"{name} {value:.2f}" for name, value in parts.items())


def _over_http(place: str, files: list[bytes]) -> float:
    """Median of POST /search over one persistent connection to a served index, in ms."""
    command = [cbir_command(), "serve", place, "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", server.stderr.readline())
        assert found is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]))
        times = []
        for data in files:
            body, headers = _form(data)
            started = time.perf_counter()
            connection.request("POST", "/search", body, headers)
            answer = connection.getresponse()
            answer.read()
            times.append(time.perf_counter() - started)
            assert answer.status == 200
        return statistics.median(times[1:]) * 1000
    finally:
        server.terminate()
        server.wait()


def _form(data: bytes) -> tuple[bytes, dict[str, str]]:
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="q.jpg"\r\n\r\n'
    body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return body, {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Accept": "application/json",
    }


def _cold(place: str, data: bytes) -> float:
    """Median of `cbir search` from the shell, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        query = Path(folder) / "query.jpg"
        query.write_bytes(data)
        command = [cbir_command(), "search", str(query), "--in", place]
        return (
            median_ms(
                lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), COLD_STARTS
            )
            / 1000
        )


if __name__ == "__main__":
    main()
