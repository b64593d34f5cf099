"""ICC profiles made from numbers, and the same conversions in NumPy (ICC.1:2010, IEC 61966-2-1)."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

D50 = np.array([0.9642, 1.0, 0.8249])

# Columns: XYZ (D50) of red, green and blue.
PROPHOTO = np.array([[0.79767, 0.13519, 0.03134], [0.28804, 0.71188, 0.00009], [0.0, 0.0, 0.82490]])
ADOBE = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
P3 = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def _s15(numbers: NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(float(number) * 65536)) for number in numbers.ravel())


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"text\0\0\0\0none\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": description, b"cprt": text, b"wtpt": b"XYZ \0\0\0\0" + _s15(D50), **tags}
    body, table = b"", struct.pack(">I", len(tags))
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">II4s4s4s4s12s4s", start + len(body), 0, bytes((2, 0x20, 0, 0)), kind, space, connection,
        struct.pack(">6H", 2024, 1, 1, 0, 0, 0), b"acsp",
    )  # fmt: skip
    header = header.ljust(68, b"\0") + _s15(D50)
    return header.ljust(128, b"\0") + table + body


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(primaries: NDArray[np.float64], gamma: float) -> bytes:
    """A display profile of three primaries and a gamma."""
    columns = {
        name: b"XYZ \0\0\0\0" + _s15(primaries[:, n])
        for n, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return _profile(b"mntr", b"RGB ", b"XYZ ", columns | curves)


def grey_profile(gamma: float) -> bytes:
    """A grey profile of a gamma."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """A printer whose paper is white and whose every ink only darkens, see `ink_lab`."""
    nodes = 9
    grid = ink_lab(np.array(list(np.ndindex(*[nodes] * 4))) / (nodes - 1))
    lab = np.stack(
        [grid[:, 0] * 652.8, grid[:, 1] * 256 + 32768, grid[:, 2] * 256 + 32768], axis=-1
    )
    ramp = struct.pack(">HH", 0, 65535)
    table = (
        b"mft2\0\0\0\0" + bytes((4, 3, nodes, 0)) + _s15(np.eye(3)) + struct.pack(">HH", 2, 2)
        + ramp * 4 + np.rint(lab).astype(">u2").tobytes() + ramp * 3
    )  # fmt: skip
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table, b"A2B1": table})


def ink_lab(inks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lab of inks (0..1, last axis C, M, Y, K)."""
    cyan, magenta, yellow, black = np.moveaxis(np.asarray(inks, dtype=float), -1, 0)
    light = 100 * (1 - 0.2 * cyan) * (1 - 0.3 * magenta) * (1 - 0.1 * yellow) * (1 - 0.9 * black)
    return np.stack([light, 0 * light, 0 * light], axis=-1)


def to_srgb(
    values: NDArray[np.uint8], primaries: NDArray[np.float64], gamma: float
) -> NDArray[np.uint8]:
    """What a colour of an `rgb_profile` is in sRGB, relative colorimetric, clipped."""
    xyz = (values / 255.0) ** gamma @ primaries.T
    return srgb_of_xyz(xyz)


def with_srgb_curve(values: NDArray[np.uint8], primaries: NDArray[np.float64]) -> NDArray[np.uint8]:
    """sRGB of colours that have sRGB's curve and other primaries."""
    levels = values / 255.0
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return srgb_of_xyz(light @ primaries.T)


def srgb_of_xyz(xyz: NDArray[np.float64]) -> NDArray[np.uint8]:
    """sRGB of XYZ relative to D50."""
    linear = np.clip(xyz @ np.linalg.inv(SRGB).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


def srgb_of_lab(lab: NDArray[np.float64]) -> NDArray[np.uint8]:
    """sRGB of CIE L*a*b* relative to D50."""
    light = (lab[..., 0] + 16) / 116
    f = np.stack([light + lab[..., 1] / 500, light, light - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50
    return srgb_of_xyz(xyz)
