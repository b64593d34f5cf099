"""Which file systems keep the inodes and change times of their files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cbir.images import mounts

LINES = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/root rw
40 27 0:52 / /mnt/nas rw - cifs //nas/photos rw,vers=3.1.1
41 27 0:53 / /mnt/one\\040two rw - fuse.sshfs me@there:/ rw
42 27 8:17 / /media/card rw - exfat /dev/sdb1 rw
43 27 0:54 / /mnt/old rw - nfs4 there:/ rw
"""


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ((254, 0), "ext4"),
        ((0, 52), "cifs"),
        ((0, 53), "fuse.sshfs"),
        ((8, 17), "exfat"),
        ((0, 54), "nfs4"),
        ((0, 99), ""),
    ],
)
def test_the_file_system_is_found_by_its_device(
    device: tuple[int, int], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = os.makedev(*device)
    assert mounts.file_system(number, LINES) == kind
    (tmp_path / "mounts").write_text(LINES)
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(Path, "stat", lambda self: os.stat_result([0, 0, number, *[0] * 7]))
    assert mounts.keeps_inodes(tmp_path) == (kind in ("ext4", ""))


def test_a_system_that_does_not_say_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "none")
    assert mounts.keeps_inodes(tmp_path)
