"""Whether a file system keeps the inodes and change times of its files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_WITHOUT = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "fuse", "vfat", "msdos", "exfat")
"""First letters of the types of Linux file systems whose inodes or change times are made up when
they are mounted: of other machines, of other systems, and of programs."""
_MOUNTS = Path("/proc/self/mountinfo")


def keeps_inodes(path: Path) -> bool:
    """Whether the file system of `path` keeps inodes and change times over time.

    Not on Windows, whose change time is the time of creation, and not on network drives and
    drives of other systems, as far as Linux names them. True if it cannot be told: stamps that
    change without reason cost time, but no result.
    """
    if sys.platform == "win32":
        return False
    try:
        device = path.stat().st_dev
        return not file_system(device, _MOUNTS.read_text(errors="replace")).startswith(_WITHOUT)
    except OSError:  # not Linux
        return True


def file_system(device: int, mounts: str) -> str:
    """The type of the file system on `device`, from the lines of /proc/self/mountinfo; "" if none.

    A line: mount id, parent, major:minor, root, mount point, options, optional fields, "-", type...
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if number in fields.split()[2:3]:
            return rest.split()[0]
    return ""
