"""Pictures that are made to hurt: what they take is bounded, and the others are not slower."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cbir.errors import CbirError, ImageError
from cbir.images import costs, decode, decoding_process, formats, large_webp, limits, rgb
from cbir.images.decode import decode_file
from cbir.images.limits import Limits, decoding_room
from tests.images import support_hostile as hostile
from tests.images.support_images import encoded, four_colours, noise
from tests.images.support_profiles import PROPHOTO, rgb_profile

AT_ONCE = Limits(seconds=0.01)
"""A limit that no process can keep."""


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def alpha(values: object) -> Image.Image:
    image = four_colours(90, 70).convert("RGBA")
    image.putalpha(Image.fromarray(np.resize(np.asarray(values, np.uint8), (70, 90))))
    return image


WIDE = noise(5, 70, 90)
DEEP = WIDE[..., 0].astype(np.uint16) * 257
PICTURES = {
    "JPEG": encoded(four_colours(90, 70)),
    "progressive": encoded(four_colours(90, 70), progressive=True),
    "CMYK": encoded(four_colours(90, 70).convert("CMYK")),
    "PNG": encoded(WIDE, "PNG"),
    "profile": encoded(WIDE, "PNG", icc_profile=rgb_profile(PROPHOTO, 1.8)),
    "palette": encoded(four_colours(90, 70).convert("P"), "PNG", transparency=0),
    "black and white": encoded(Image.fromarray(WIDE).convert("1"), "PNG"),
    "transparent": encoded(alpha(range(251)), "PNG"),
    "faint": encoded(Image.new("RGBA", (90, 70), (255, 255, 255, 0)), "PNG"),
    "16 bits": encoded(DEEP, "PNG"),
    "float": encoded(Image.fromarray(DEEP.astype(np.float32) * -3), "TIFF"),
    **{f"turned {n}": encoded(WIDE, "PNG", exif=exif(n)) for n in range(2, 9)},
}


@pytest.mark.parametrize("name", PICTURES)
def test_conversion_in_bands_and_in_a_process_changes_no_pixel(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decode_file(PICTURES[name])
    monkeypatch.setattr(rgb, "_BAND", 1000)
    np.testing.assert_array_equal(decode_file(PICTURES[name]).pixels, whole.pixels)
    if name in ("JPEG", "float", "turned 6"):
        monkeypatch.setattr(decode, "_TINY", 0)
        monkeypatch.setattr(limits, "_QUICK", 0.0)
        apart = decode_file(PICTURES[name])
        np.testing.assert_array_equal(apart.pixels, whole.pixels)
        assert (apart.width, apart.height) == (whole.width, whole.height)


WEBPS = {
    "lossy": encoded(WIDE, "WEBP", quality=40),
    "lossless": encoded(WIDE, "WEBP", lossless=True),
    "transparent": encoded(alpha(range(251)), "WEBP"),
    "transparent, lossless": encoded(alpha(range(251)), "WEBP", lossless=True),
    "profile": encoded(WIDE, "WEBP", icc_profile=rgb_profile(PROPHOTO, 1.8)),
    "turned": encoded(four_colours(91, 69), "WEBP", exif=exif(6)),
    "animated": encoded(WIDE, "WEBP", save_all=True, append_images=[four_colours(90, 70)]),
    "one frame": hostile.one_frame_webp(90, 70),
    "only flagged as transparent": hostile.flagged_webp(90, 70),
}
WEBPS["not flagged as transparent"] = WEBPS["transparent"][:20] + b"\0" + WEBPS["transparent"][21:]
LEFT_TO_PILLOW = ("animated", "one frame", *(name for name in WEBPS if "flagged" in name))


@pytest.mark.parametrize("name", WEBPS)
def test_large_webps_have_the_pixels_that_pillow_gives(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = WEBPS[name]
    expected = decode_file(data)
    monkeypatch.setattr(large_webp, "PIXELS", 1)
    asked: list[int] = []
    read = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: asked.append(1) or read(*given))
    found = decode_file(data)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.width, found.height) == (expected.width, expected.height)
    assert bool(asked) == (name not in LEFT_TO_PILLOW)


def test_large_webps_are_damaged_where_pillow_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_webp, "PIXELS", 1)
    rng = np.random.default_rng(0)
    refused = 0
    for name in ("lossy", "lossless", "transparent", "turned"):
        for _ in range(60):
            damaged = bytearray(WEBPS[name])
            damaged[rng.integers(12, len(damaged))] = rng.integers(256)
            answers = []
            for size in (10**9, 1):
                monkeypatch.setattr(large_webp, "PIXELS", size)
                try:
                    answers.append(decode_file(bytes(damaged)).pixels)
                except ImageError as error:
                    answers.append(np.array(error.message))
            np.testing.assert_array_equal(*answers)
            refused += answers[0].ndim == 0
    assert 20 < refused < 220


def test_notes_and_reasons_come_back_from_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    data = PICTURES["JPEG"]
    monkeypatch.setattr(decode, "_TINY", 0)
    monkeypatch.setattr(limits, "_QUICK", 0.0)
    assert decode_file(data[:-2]).notes == decode_file(data[:-2], Limits(seconds=np.inf)).notes
    with pytest.raises(ImageError, match="image is truncated"):
        decode_file(data[:-200])


def test_scans_are_counted_before_they_are_decoded() -> None:
    with pytest.raises(ImageError, match="the JPEG has more than 500 scans"):
        decode_file(hostile.many_scans(10_000))
    assert decode_file(hostile.many_scans(500)).pixels.shape == (64, 64, 3)


def test_thumbnails_in_metadata_are_no_scans() -> None:
    data = PICTURES["progressive"]
    comment = b"\xff\xfe\x40\x02" + b"\xff\xda" * 0x2000
    np.testing.assert_array_equal(
        decode_file(data[:2] + comment * 5 + data[2:]).pixels, decode_file(data).pixels
    )


def test_a_picture_that_takes_longer_than_the_limit_is_given_up() -> None:
    slow = hostile.many_scans(450, side=3000)
    with pytest.raises(ImageError, match=r"took longer than 0.01 s to decode") as caught:
        decode_file(slow, AT_ONCE)
    assert "--max-seconds" in caught.value.hint


def test_a_picture_that_took_too_long_is_not_tried_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, other = hostile.many_scans(450, side=2990), hostile.many_scans(450, side=2980)

    def is_tried(picture: bytes, given: Limits) -> bool:
        with monkeypatch.context() as patched:
            patched.delattr(decoding_process, "subprocess")
            with pytest.raises(ImageError) as caught:
                decode_file(picture, given)
        return "subprocess" in str(caught.value)

    with pytest.raises(ImageError, match=r"took longer than 0.01 s"):
        decode_file(slow, AT_ONCE)
    assert not is_tried(slow, AT_ONCE)
    assert is_tried(other, AT_ONCE)
    assert is_tried(slow, Limits(seconds=0.02))
    monkeypatch.setattr(decoding_process, "_REMEMBERED", 0.0)
    with pytest.raises(ImageError, match=r"took longer than 0.01 s"):
        decode_file(other, AT_ONCE)
    assert is_tried(other, AT_ONCE)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_limit_that_no_picture_can_keep_is_refused(seconds: float) -> None:
    with pytest.raises(CbirError, match="seconds to decode a picture"):
        Limits(seconds=seconds)


def test_a_limit_larger_than_any_of_the_system_is_none() -> None:
    found = decode_file(hostile.many_segments(), Limits(10**18, seconds=1e18))
    assert (found.width, found.height) == (8, 8)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_process_that_answers_nothing_and_goes_on_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    idle = tmp_path / "idle"
    idle.write_text("#!/bin/sh\nexec sleep 20 >&-\n")
    idle.chmod(0o755)
    monkeypatch.setattr(decoding_process.sys, "executable", str(idle))
    with pytest.raises(ImageError, match=r"took longer than 0.3 s"):
        decode_file(hostile.many_scans(450, side=3000), Limits(seconds=0.3))


def test_decoding_can_be_stopped() -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(ImageError, match="decoding was stopped"):
        decode_file(hostile.many_scans(450, side=5000), Limits(seconds=600, stopped=stopped))


@pytest.mark.parametrize(
    "made",
    [
        *(hostile.many_segments, hostile.many_chunks, hostile.many_blocks),
        *(hostile.many_strips, hostile.many_layers, hostile.long_comment),
        *(hostile.shared_tags_in_tiff, hostile.shared_tags_in_jpeg),
    ],
)
def test_headers_with_too_many_parts_are_read_in_a_process(made) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImageError, match="took longer"):
        decode_file(made(), AT_ONCE)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "made",
    [
        lambda: hostile.shared_tags("PNG"),
        lambda: hostile.shared_tags("WEBP"),
        lambda: hostile.shared_tags("AVIF"),
        hostile.shared_tags_in_jpeg,
        hostile.many_directories,
    ],
)
@pytest.mark.filterwarnings("ignore:Tag data larger")  # while the file is written
def test_metadata_take_little_memory_here(made, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Directories took 10 GB, and EXIF 72 MB and more with versions of Pillow before 13."""
    path = tmp_path / "made"
    path.write_bytes(made())
    told = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
    )
    assert int(told.stdout.split()[0]) < 40_000


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "JPEG2000", "PPM", "WEBP", "BMP"])
def test_ordinary_pictures_need_no_process(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(decode, "decode_in_process")
    assert decode_file(encoded(noise(1, 300, 500), form)).pixels.shape == (300, 500, 3)


def test_decoders_in_python_count_as_slow() -> None:
    with pytest.raises(ImageError, match="took longer"):
        decode_file(b"P6 300 300 100\n" + bytes(270_000), AT_ONCE)


def test_a_process_has_limited_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_QUICK", 0.0)
    monkeypatch.setattr(decoding_process, "MEMORY", 1_000_000)
    monkeypatch.setattr(decoding_process, "_BASE", 400_000_000)
    big = encoded(Image.new("RGB", (9000, 9000)), "PNG")
    with pytest.raises(ImageError, match=r"needs more than 0.001 GB of memory to decode"):
        decode_file(big)


PEAK = """
import re, resource, sys
import cv2
from cbir.errors import CbirError, ImageError
from cbir.images.decode import decode_file
from cbir.images.formats import reader_of, sniff
from cbir.images.exif import exif_fields
with open(sys.argv[1], "rb") as file:
    data = file.read()
decode_file(b"P5 1 1 255\\n0")
reader_of(sniff(data))
exif_fields(b"")
def peak():  # not ru_maxrss, which begins with the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
exif_fields(data)
try:
    decode_file(data)
except ImageError:
    pass
print(peak() - before,
      resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("made", "most"),
    [
        (lambda: big("F", "TIFF", compression="tiff_adobe_deflate"), 15),
        (lambda: big("RGBA", "PNG"), 10),
        (lambda: big("RGB", "WEBP"), 10),
        (lambda: big("RGBA", "WEBP"), 11),
        (lambda: hostile.flagged_webp(4000, 4000), 18),
        (lambda: hostile.one_frame_webp(6000, 6000), 18),
    ],
)
def test_the_peak_of_memory_is_bounded(made: Callable[[], bytes], most: int, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """`most`: bytes a pixel; the first four took 31, 20, 16 and 16. Estimates are not below."""
    data = made()
    path = tmp_path / "big"
    path.write_bytes(data)
    told = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
    )
    here, child = (int(number) * 1024 for number in told.stdout.split())
    opened = Image.open(io.BytesIO(data))
    pixels = opened.width * opened.height
    assert here < most * pixels
    assert child < most * pixels + 60e6
    cost = costs.cost_of(formats.sniff(data) or "", opened, data, pixels)  # type: ignore[arg-type]
    assert here < cost.memory + 10e6


def big(mode: str, form: str, **options: object) -> bytes:
    colour = (9, 9, 9, 9) if mode == "RGBA" else 0
    return encoded(Image.new(mode, (4000, 4000), colour), form, **options)


def test_pictures_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_total", 100_000_000)
    lock, inside, most = threading.Lock(), 0, 0

    def take(size: int) -> None:
        nonlocal inside, most
        with decoding_room(size):
            with lock:
                inside += size
                most = max(most, inside)
            threading.Event().wait(0.01)
            with lock:
                inside -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [40_000_000] * 12))
    assert 40_000_000 <= most <= 80_000_000
    with decoding_room(10**12):  # alone
        pass
    assert limits._taken == 0


def test_who_waits_only_for_a_time_counts_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_total", 100_000_000)
    pixels = np.zeros((4000, 5000, 3), np.uint8)
    limits.keep(pixels)
    view = pixels[:10]
    del pixels
    impatient = Limits(wait=0.01)
    with pytest.raises(limits.NoRoomError), decoding_room(50_000_000, impatient):
        pass
    with decoding_room(50_000_000):  # patient ones might hold pixels that others wait for
        pass
    del view
    with decoding_room(50_000_000, impatient):
        pass


def test_waiting_for_room_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_total", 100_000_000)
    stopped = threading.Event()
    stopped.set()
    with (
        decoding_room(90_000_000),
        pytest.raises(ImageError, match="stopped"),
        decoding_room(50_000_000, Limits(stopped=stopped)),
    ):
        pass


ORPHAN = """
import sys
from tests.images.support_hostile import many_scans
from cbir.images.decode import decode_file
data = many_scans(450, side=6000)
print("begun", flush=True)
decode_file(data)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_process_ends_with_its_parent_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        wait_until(lambda: decoders_of(parent.pid))
        (child,) = decoders_of(parent.pid)
        parent.kill()
    wait_until(lambda: not Path(f"/proc/{child}").exists() or "Z" in state(child), seconds=10)


def decoders_of(parent: int) -> list[str]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    children = " ".join(task.read_text() for task in tasks).split()
    return [c for c in children if b"decode_task" in Path(f"/proc/{c}/cmdline").read_bytes()]


def state(process: str) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_failure_for_want_of_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("out of memory error when reading image file")

    monkeypatch.setattr(decode, "rgb_pixels", fail)
    with pytest.raises(MemoryError):
        decode_file(PICTURES["JPEG"])


def test_decoders_that_fail_where_memory_is_lacking_do_not_mean_damage() -> None:
    """libjpeg says "broken data stream"; so the memory is tried."""
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import io, resource; from cbir.images.decode import decode_file\n"
            "from PIL import Image, JpegImagePlugin\n"
            "file = io.BytesIO(); Image.new('RGB', (5000, 5000)).save(file, 'JPEG')\n"
            "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
            "resource.setrlimit(resource.RLIMIT_AS, (used + 40_000_000,) * 2)\n"
            "try: decode_file(file.getvalue())\n"
            "except MemoryError: print('memory')",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout == "memory\n", told.stderr
