"""Grey values of every depth have the brightness of their 8-bit picture."""

import numpy as np
import pytest
from PIL import Image

from cbir.images.decode import decode
from tests.images.support_images import encoded
from tests.images.support_tiff import grey

GREY = np.tile(np.linspace(0, 255, 32).round().astype(np.int64), (4, 1))


def packed_12_bit(values):
    """Two values in three bytes, the first in the higher bits (TIFF 6.0, FillOrder 1)."""
    first, second = values.ravel()[::2], values.ravel()[1::2]
    rows = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
    return np.stack(rows, axis=-1).astype(np.uint8).tobytes()


SIGNED, FLOAT = 2, 3
KINDS = {
    "12-bit": (packed_12_bit((GREY * 4095 + 127) // 255), 12, 1),
    "16-bit": ((GREY * 257).astype("<u2").tobytes(), 16, 1),
    "32-bit": ((GREY * 16843009).astype("<u4").tobytes(), 32, 1),
    "32-bit, low": ((GREY * 257).astype("<u4").tobytes(), 32, 1),
    "signed 8-bit": ((GREY - 128).astype("i1").tobytes(), 8, SIGNED),
    "signed 8-bit, positive": ((GREY // 2).astype("i1").tobytes(), 8, SIGNED),
    "signed 16-bit": ((GREY * 257 - 32768).astype("<i2").tobytes(), 16, SIGNED),
    "signed 16-bit, positive": ((GREY * 32767 // 255).astype("<i2").tobytes(), 16, SIGNED),
    "signed 32-bit": ((GREY * 16843009 - 2**31).astype("<i4").tobytes(), 32, SIGNED),
    "signed 32-bit, positive": ((GREY * 8421504).astype("<i4").tobytes(), 32, SIGNED),
    "float": ((GREY / 255).astype("<f4").tobytes(), 32, FLOAT),
    "float to 255": (GREY.astype("<f4").tobytes(), 32, FLOAT),
}
INVERTED = ["12-bit", "16-bit", "32-bit", "signed 8-bit", "signed 16-bit", "float"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_depth_has_the_brightness_of_the_8_bit_picture(kind):
    samples, bits, sample_format = KINDS[kind]
    got = decode(grey(samples, 32, 4, bits=bits, sample_format=sample_format))
    assert np.abs(got - GREY[:, :, None]).max() <= 2


@pytest.mark.parametrize("kind", INVERTED)
def test_white_is_zero_is_inverted(kind):
    samples, bits, sample_format = KINDS[kind]
    file = grey(samples, 32, 4, bits=bits, sample_format=sample_format, white_is_zero=True)
    assert np.abs(255 - decode(file) - GREY[:, :, None]).max() <= 2


def test_white_is_zero_of_the_other_byte_order_is_inverted_too():
    file = grey((GREY * 257).astype(">u2").tobytes(), 32, 4, bits=16, white_is_zero=True, order=">")
    assert np.abs(255 - decode(file) - GREY[:, :, None]).max() <= 2


def test_8_bit_white_is_zero_is_inverted_once():
    file = grey(GREY.astype(np.uint8).tobytes(), 32, 4, bits=8, white_is_zero=True)
    assert np.array_equal(decode(file), np.repeat(255 - GREY[:, :, None], 3, axis=2))


def test_a_dark_16_bit_picture_stays_dark():
    assert decode(encoded(Image.fromarray(np.full((2, 2), 2570, np.uint16)), "PNG")).max() == 10


def test_measurements_that_span_little_of_their_type_use_the_whole_range():
    heights = np.array([[-1000, 0, 3000]])
    file = grey(heights.astype("<i2").tobytes(), 3, 1, bits=16, sample_format=SIGNED)
    assert decode(file)[0, :, 0].tolist() == [0, 64, 255]
    counts = np.array([[0, 50_000, 100_000]])
    file = grey(counts.astype("<u4").tobytes(), 3, 1, bits=32)
    assert decode(file)[0, :, 0].tolist() == [0, 128, 255]
