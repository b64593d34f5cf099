"""What libtiff says about a picture is told with that picture, and nowhere else."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from cbir.errors import ImageError
from cbir.images.decode import decode_file, pixels_of_image
from cbir.images.decoding_process import Task, decode_in_process
from cbir.images.formats import RAW, TIFF, sniff
from cbir.images.limits import DEFAULT
from tests.images.support_images import noise
from tests.images.support_tiff import Directory, tiff

SAID = {
    "tiff_deflate": "ZIPDecode: Decoding error at scanline 0, incorrect header check",
    "tiff_lzw": "(LZW|code)",  # versions of libtiff differ
    "jpeg": "JPEGLib: Not a JPEG file: starts with 0xff 0xff",
}


def written(compression: str) -> bytearray:
    file = io.BytesIO()
    Image.fromarray(noise(3, 40, 40)).save(file, "TIFF", compression=compression)
    return bytearray(file.getvalue())


def damaged(compression: str) -> bytes:
    """A TIFF whose pixels begin with bytes that no encoder writes."""
    data = written(compression)
    with Image.open(io.BytesIO(data)) as image:
        start = image.tag_v2[273][0]  # type: ignore[attr-defined]
    data[start : start + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


def fax(rows: int) -> bytes:
    """A fax (modified Huffman) of random bytes, of which libtiff reads what it can."""
    tags = {256: 64, 257: rows, 258: 1, 259: 2, 262: 0, 277: 1, 278: rows}
    return tiff(Directory(tags, np.random.default_rng(5).bytes(20 * rows)))


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_file(data)
    return caught.value.message


@pytest.mark.parametrize("compression", SAID)
def test_the_reason_of_a_damaged_tiff_is_libtiffs(
    compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ImageError, match=rf"decoder error -2 \(libtiff: .*{SAID[compression]}.*\)$"
    ):
        decode_file(damaged(compression))
    assert capfd.readouterr() == ("", "")


def test_a_tiff_that_is_read_despite_an_error_has_a_note(
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = decode_file(fax(300))
    assert found.pixels.shape == (300, 64, 3)
    (note,) = found.notes
    assert note.startswith(
        "some pixels may be wrong (libtiff: Fax3DecodeRLE: Bad code word at line "
    )
    assert note.isprintable()
    assert decode_file(bytes(written("tiff_deflate"))).notes == ()
    assert capfd.readouterr() == ("", "")


def test_previews_of_raw_files_are_heard(capfd: pytest.CaptureFixture[str]) -> None:
    tags = {256: 40, 257: 40, 258: [8] * 3, 259: 8, 262: 2, 277: 3, 278: 40}
    cr2 = tiff(Directory(tags, b"CR\x02\0" + b"\xff" * 500))
    assert sniff(cr2) == RAW
    assert "incorrect header check" in reason_of(cr2)
    assert capfd.readouterr() == ("", "")


def test_a_process_of_its_own_tells_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    task = Task(TIFF, None, None, 1)
    with pytest.raises(ImageError, match="incorrect header check"):
        decode_in_process(task, damaged("tiff_deflate"), DEFAULT)
    assert decode_in_process(task, fax(300), DEFAULT).notes == decode_file(fax(300)).notes
    assert capfd.readouterr() == ("", "")


def test_threads_hear_only_their_own_pictures() -> None:
    pictures = [damaged("tiff_deflate"), damaged("jpeg"), damaged("tiff_lzw")]
    alone = [reason_of(data) for data in pictures]
    assert len(set(alone)) == len(alone)
    together = threading.Barrier(len(pictures))

    def many(data: bytes) -> set[str]:
        together.wait()
        return {reason_of(data) for _ in range(50)}

    with ThreadPoolExecutor(len(pictures)) as threads:
        assert list(threads.map(many, pictures)) == [{reason} for reason in alone]


def test_after_a_picture_with_many_errors_others_are_heard(
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = decode_file(fax(300)).notes
    assert decode_file(fax(20_000)).notes == first
    assert "incorrect header check" in reason_of(damaged("tiff_deflate"))
    assert capfd.readouterr() == ("", "")


def test_an_opened_image_tells_why_it_cannot_be_read(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        Image.open(io.BytesIO(damaged("tiff_deflate"))) as image,
        pytest.raises(ImageError, match=r"cannot be read: .*incorrect header check"),
    ):
        pixels_of_image(image)
    assert capfd.readouterr() == ("", "")
