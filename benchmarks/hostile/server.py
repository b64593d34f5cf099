"""A server in a process of its own, and requests to it from addresses of their own."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.hostile.measured import group
from benchmarks.hostile.trials import write_pictures
from benchmarks.setting import find_photos
from benchmarks.verification import write_sample
from cbir.ingest.indexing import index_images

TIMEOUT = 60.0
KIND = "multipart/form-data; boundary=e"
DRAWN = 60
DESCRIPTOR = "cifar10-cnn"  # takes little of the cores: the server is tried, not a network


@dataclass(frozen=True)
class Served:
    """A running server, and the files of the pictures that it has.

    `stop` interrupts it; raises `AssertionError` if it does not end well.
    """

    host: str
    port: int
    files: list[Path]
    stop: Callable[[], None] = lambda: None

    def id_of(self, number: int) -> str:
        """The id of a picture."""
        return f"photos/{self.files[number % len(self.files)].name}"


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve 200 photos (drawn pictures if there are none) until the block ends."""
    archive = find_photos()
    photos = folder / "photos"
    if archive:
        write_sample(str(archive), photos)
    else:
        write_pictures(photos, DRAWN, side=256)
    index_images([photos], folder / "photos.cbir", descriptor=DESCRIPTOR)
    command = [sys.executable, "-m", "cbir", "serve", str(folder / "photos.cbir"), "--port", "0"]
    errors: list[str] = []
    with group(command, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        address = _address(child.stderr)
        reader = threading.Thread(target=errors.extend, args=(child.stderr,), daemon=True)
        reader.start()

        def stop() -> None:
            child.send_signal(signal.SIGINT)
            code = child.wait(TIMEOUT)
            reader.join()
            told = "".join(errors)
            assert code == 0 and "Traceback" not in told, f"exit code {code}: {told[-2000:]}"

        yield Served(*address, sorted(photos.iterdir()), stop)


def _address(lines: Iterator[str]) -> tuple[str, int]:
    """Host and port that a server names when it is ready."""
    said = []
    for line in lines:
        said.append(line)
        if "http://" in line:
            place = urlsplit(next(word for word in line.split() if word.startswith("http://")))
            assert place.hostname and place.port
            return place.hostname, place.port
    raise AssertionError(f"no page came: {said}")


def request(
    served: Served, path: str, body: bytes = b"", *, client: int = 0, timeout: float = TIMEOUT
) -> int:
    """Status of GET, or of POST if there is a body, on a connection of its own.

    `client`: each has an address of its own. Raises what a connection raises, and `ValueError` if
    the answer is no JSON.
    """
    connection = http.client.HTTPConnection(
        served.host, served.port, timeout=timeout, source_address=(address_of(client), 0)
    )
    with closing(connection):
        headers = {"Accept": "application/json", **({"Content-Type": KIND} if body else {})}
        connection.request("POST" if body else "GET", path, body or None, headers)
        answer = connection.getresponse()
        json.loads(answer.read())
        return answer.status


def address_of(client: int) -> str:
    """A loopback address (Linux has all of them)."""
    return f"127.0.1.{client + 1}"


def upload(picture: bytes) -> bytes:
    """The body of a search by a picture."""
    head = b'--e\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return head + picture + b"\r\n--e--\r\n"
