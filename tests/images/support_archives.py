"""Archives that are made to exhaust memory or disk."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from tests.images.support_images import add_to_tar, encoded, four_colours

PNG = encoded(four_colours(), "PNG")
END = bytes(1024)  # of a tar


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


COMPRESSORS: Mapping[str, Callable[[], Compressor]] = {
    "gz": lambda: zlib.compressobj(wbits=31),
    "bz2": bz2.BZ2Compressor,
    "xz": lzma.LZMACompressor,
}


def lying_zip(path: Path, method: int, stated: int, size: int) -> Path:
    """A member of `size` zeros that states `stated` bytes, between two good ones."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", PNG)
        with archive.open("b.png", "w") as member:
            for part in _parts(b"\0", size):
                member.write(part)
        archive.writestr("c.png", PNG)
    data = bytearray(path.read_bytes())
    entry = data.index(b"b.png", data.index(b"PK\1\2")) - 46
    assert data[entry : entry + 4] == b"PK\1\2"
    data[entry + 24 : entry + 28] = struct.pack("<I", stated)
    path.write_bytes(data)
    return path


def bloated_tar(path: Path, packer: str, kind: bytes, size: int) -> Path:
    """Two good members; the one between them, `cut`, has a header of `size` bytes."""
    size -= size % 512
    compressor = COMPRESSORS[packer]()
    with path.open("wb") as file:
        for part in (tar_member("a.png"), tar_header(kind, size), *_parts(b"n", size)):
            file.write(compressor.compress(part))
        file.write(compressor.compress(tar_member("cut") + tar_member("b.png") + END))
        file.write(compressor.flush())
    return path


def long_name_tar(path: Path, record: bytes) -> Path:
    """A good member after the one, `cut`, that `record` of a pax header renames."""
    size = len(record) + 2
    line = b"%d %s\n" % (size + len(str(size + 3)), record)
    data = tar_header(tarfile.XHDTYPE, len(line)) + padded(line) + tar_member("cut")
    path.write_bytes(data + tar_member("a.png") + END)
    return path


def tar_header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def tar_member(name: str, data: bytes = PNG) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add_to_tar(archive, name, data)
        return out.getvalue()[: archive.offset]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def _parts(filler: bytes, size: int) -> Iterable[bytes]:
    for start in range(0, size, 1_000_000):
        yield filler * min(1_000_000, size - start)
