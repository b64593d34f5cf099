"""Model arrays as NPZ: reproducible bytes, strict reading, no pickle.

An NPZ is a ZIP of NPY members (NumPy Enhancement Proposal 1), here uncompressed. Only float16 and
float32 are used.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError

Arrays = Mapping[str, NDArray[np.floating[Any]]]

DTYPES = ("<f2", "<f4")
MAX_BYTES = 1 << 30
_EPOCH = (1980, 1, 1, 0, 0, 0)
_DAMAGE = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error, RuntimeError)


def npz_bytes(arrays: Arrays) -> bytes:
    """Encode `arrays` (float16 or float32, any shape) as NPZ; equal arrays give equal bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            array = np.ascontiguousarray(arrays[name])
            if array.dtype.str not in DTYPES:
                raise CbirError(f"array '{name}' is {array.dtype}; models store float16 or float32")
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    return stream.getvalue()


def read_npz(data: bytes, what: str) -> dict[str, NDArray[np.floating[Any]]]:
    """Decode the arrays in `data` (read-only).

    Raises `CbirError`, naming `what`, if `data` is not NPZ, or if an array is not float16 or
    float32, is truncated or is not finite.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            # A compressed member may expand to far more than it states.
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("it is compressed")
            if sum(member.file_size for member in members) > MAX_BYTES:
                raise ValueError(f"it holds more than {MAX_BYTES >> 20} MiB")
            arrays = {
                name.removesuffix(".npy"): _array(archive.read(name), name)
                for name in archive.namelist()
            }
    except _DAMAGE as error:
        raise CbirError(f"{what} is damaged: {error}", "restore the model's files") from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CbirError(f"{what}: '{name}' contains non-finite values")
    return arrays


def fingerprint(arrays: Arrays) -> str:
    """The sha256 (hex) of the names, types, shapes and values of `arrays`."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _array(member: bytes, name: str) -> NDArray[np.floating[Any]]:
    stream = io.BytesIO(member)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"'{name}' has an unknown NPY version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.str not in DTYPES or fortran:
        raise ValueError(f"'{name}' is {dtype}; expected float16 or float32 in C order")
    # Do not let NumPy allocate memory based on the header alone.
    if math.prod(shape) * dtype.itemsize != len(member) - stream.tell():
        raise ValueError(f"'{name}' is truncated")
    return np.frombuffer(member, dtype=dtype, offset=stream.tell()).reshape(shape)
