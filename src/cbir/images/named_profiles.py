"""ICC profiles of colour spaces that a file names or describes in another way."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbir.images.costs import has_large_tags

if TYPE_CHECKING:
    from PIL.Image import Image

Points = tuple[float, ...]
"""CIE 1931 x and y of white, red, green and blue, in the order of the chunk cHRM."""

Values = NDArray[np.float64]

ADOBE_RGB = b"R03\0"
"""In EXIF, the interoperability index of pictures in Adobe RGB (DCF 2.0)."""

_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE, _ADOBE_GAMMA = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 563 / 256

# ITU-T H.273, tables 2 and 3.
_PRIMARIES: dict[int, Points] = {
    1: _SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_VIDEO = (1, 6, 11, 14, 15)
_GAMMAS = dict.fromkeys(_VIDEO, 2.4) | {4: 2.2, 5: 2.8, 8: 1.0}  # video as ITU-R BT.1886
_BT709, _UNSPECIFIED, _SRGB_CURVE, _PQ, _HLG = 1, 2, 13, 16, 18

_WHITE, _PEAK = 203, 1000  # cd/m2: reference white (ITU-R BT.2408), and the usual brightest white
_LIKE_SRGB = (0.4318, 0.4773)  # gAMA: 1/2.2 and 5 % on both sides
_LEAST_GAMA, _LARGEST_GAMA, _LARGEST_XYZ = 0.1, 10, 100
_CREATOR = b"cbir"
_CICP, _RGB_OF_FULL_RANGE = b"\0\0\0\4cICP", b"\0\1"
_NCLX = b"\0\0\0\x13colrnclx"
_HEAD = 2**16  # bytes that hold the boxes of an AVIF file
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50 = np.array([0.9642, 1.0, 0.8249])


def named_profile(image: Image, file: IO[bytes] | None = None) -> bytes | None:
    """The profile that replaces the embedded one, if any; None if nothing else counts.

    In order of precedence: the chunk cICP of a PNG, an embedded profile, the chunks sRGB, and gAMA
    with or without cHRM (PNG, third edition, section 4.3); nclx of AVIF and HEIC (ITU-T H.273);
    Adobe RGB in EXIF (DCF 2.0: interoperability index R03). What is unknown, unspecified or
    impossible is passed over, and what names sRGB is None where no embedded profile contradicts.
    `file`: the file whose header `image` has read.
    """
    info = image.info
    codes = _cicp(file) if file and image.format == "PNG" else None
    if codes and (codes != (_BT709, _SRGB_CURVE) or info.get("icc_profile")):
        profile = _of_codes(*codes)
        if profile:
            return profile
    if codes == (_BT709, _SRGB_CURVE) or info.get("icc_profile") or "srgb" in info:
        return None
    if "gamma" in info:
        return _of_gama(info["gamma"], info.get("chromaticity", _SRGB))
    codes = _nclx(info, file if image.format == "AVIF" else None)
    if codes:
        return _of_codes(*codes) if codes != (_BT709, _SRGB_CURVE) else None
    return _adobe_rgb() if _is_adobe_rgb(image) else None


def is_named(profile: bytes | None) -> bool:
    """Whether a profile comes from `named_profile`."""
    return profile is not None and profile[80:84] == _CREATOR


def _cicp(file: IO[bytes]) -> tuple[int, int] | None:
    """The primaries and the transfer function in the chunks that were read."""
    end = file.tell()
    file.seek(0)
    read = file.read(end)
    at = read.find(_CICP)
    codes = read[at + 8 : at + 12]
    return (codes[0], codes[1]) if at >= 0 and codes[2:] == _RGB_OF_FULL_RANGE else None


def _nclx(info: dict[str | tuple[int, int], Any], avif: IO[bytes] | None) -> tuple[int, int] | None:
    """The same for AVIF and HEIC, sRGB for what is unspecified or the usual curve of video."""
    if avif:
        avif.seek(0)
        head = avif.read(_HEAD)
        at = head.find(_NCLX)
        if not 0 <= at < len(head) - 16:
            return None
        primaries, transfer = struct.unpack_from(">HH", head, at + 12)
    elif "nclx_profile" in info:
        held = info["nclx_profile"]
        primaries, transfer = held["color_primaries"], held["transfer_characteristics"]
    else:
        return None
    return (
        _BT709 if primaries == _UNSPECIFIED else primaries,
        _SRGB_CURVE if transfer in (_UNSPECIFIED, *_VIDEO) else transfer,
    )


def _is_adobe_rgb(image: Image) -> bool:
    if ADOBE_RGB not in (image.info.get("exif") or b"") or has_large_tags(image):
        return False
    from PIL.ExifTags import IFD

    try:
        index: object = image.getexif().get_ifd(IFD.Interop).get(1)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - damaged EXIF names nothing
        return False
    return index == ADOBE_RGB.rstrip(b"\0").decode()


@lru_cache(maxsize=64)
def _of_codes(primaries: int, transfer: int) -> bytes | None:
    """The profile of two code points of ITU-T H.273, None if one is not known."""
    levels = np.arange(256) / 255
    if transfer in _GAMMAS:
        light = levels ** _GAMMAS[transfer]
    elif transfer == _SRGB_CURVE:
        light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    elif transfer == _PQ:
        light = _tone_mapped(_light_of_pq(levels) / _WHITE)
    elif transfer == _HLG:
        light = _tone_mapped(_light_of_hlg(levels) / _WHITE)
    else:
        return None
    return _profile(_PRIMARIES[primaries], light) if primaries in _PRIMARIES else None


@lru_cache(maxsize=64)
def _of_gama(gama: float, points: Points) -> bytes | None:
    """The profile of gAMA and cHRM; None if it is sRGB's, or impossible."""
    low, high = _LIKE_SRGB
    like_srgb = np.abs(np.subtract(points, _SRGB)).max() < 0.001
    if not _LEAST_GAMA <= gama <= _LARGEST_GAMA or (like_srgb and low < gama < high):
        return None
    return _profile(points, (np.arange(256) / 255) ** (1 / gama))


@lru_cache(maxsize=1)
def _adobe_rgb() -> bytes | None:
    return _profile(_ADOBE, (np.arange(256) / 255) ** _ADOBE_GAMMA)


def _light_of_pq(signal: Values) -> Values:
    """cd/m2 (SMPTE ST 2084)."""
    power = signal ** (32 / 2523)
    ratio = np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)
    light: Values = 10_000 * ratio ** (16384 / 2610)
    return light


def _light_of_hlg(signal: Values) -> Values:
    """cd/m2 of grey on a screen of `_PEAK` (ITU-R BT.2100)."""
    scene = np.where(
        signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )
    light: Values = _PEAK * scene**1.2
    return light


def _tone_mapped(light: Values) -> Values:
    """Brings light relative to reference white into 0..1, by the curve that Chromium uses.

    Reference white becomes 0.5, and `_PEAK` 1; between them the curve is a quadratic Bezier curve
    whose middle point prolongs the line below (SMPTE ST 2094-50: 0.65 of the way up to 1).
    """
    peak = _PEAK / _WHITE
    # Solves light = (1 - t)^2 + 2 * 1.65 * t * (1 - t) + peak * t^2.
    square, line = peak + 1 - 2 * 1.65, 2 * 0.65
    above = np.clip(light, 1, peak) - 1
    t = (np.sqrt(line**2 + 4 * square * above) - line) / (2 * square)
    curve = 0.5 * (1 - t) ** 2 + 2 * 0.825 * t * (1 - t) + t**2
    return np.where(light <= 1, light / 2, curve)


def _profile(points: Points, light: Values) -> bytes | None:
    """A display profile (ICC.1:2022); `light`: of the 256 levels. None for impossible points."""
    columns = _columns(points)
    if columns is None:
        return None
    curve = struct.pack(">4s4xI256H", b"curv", 256, *np.rint(light * 65535).astype(int))
    text = struct.pack(">4s4xIIHHII2s", b"mluc", 1, 12, 0x656E, 0x5553, 2, 28, b"\0-")
    values = [text, _numbers(_D50), *map(_numbers, columns.T), curve]
    names = (b"desc", b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC")
    padded = [value + bytes(-len(value) % 4) for value in values]
    first = 128 + 4 + 12 * (len(names) + 3)
    table = [
        struct.pack(">4sII", name, first + sum(map(len, padded[:number])), len(value))
        for number, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    # One text, and one curve for all channels.
    table += [b"cprt" + table[0][4:], b"gTRC" + table[-1][4:], b"bTRC" + table[-1][4:]]
    body = struct.pack(">I", len(table)) + b"".join(table + padded)
    head = struct.pack(
        ">I4xI4s4s4s12s4s28x12s4s44x", 128 + len(body), 0x04400000, b"mntr", b"RGB ", b"XYZ ",
        struct.pack(">6H", 2026, 1, 1, 0, 0, 0), b"acsp", _numbers(_D50)[8:], _CREATOR,
    )  # fmt: skip
    return head + body


def _columns(points: Points) -> Values | None:
    """XYZ of red, green and blue, adapted to D50 (Bradford); None if the points span no colours."""
    x, y = np.reshape(points, (4, 2)).T
    if min(y) <= 0 or max(points) > 1:
        return None
    white, *colours = np.stack([x / y, np.ones(4), (1 - x - y) / y], axis=1)
    primaries = np.transpose(colours)
    if abs(np.linalg.det(primaries)) < 1e-3:
        return None
    cones = _BRADFORD @ white
    if min(cones) <= 0:
        return None
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD
    columns: Values = adapted @ (primaries * np.linalg.solve(primaries, white))
    return columns if np.abs(columns).max() < _LARGEST_XYZ else None


def _numbers(values: Values) -> bytes:
    """An XYZ tag."""
    return struct.pack(">4s4x3i", b"XYZ ", *np.rint(values * 65536).astype(int))
