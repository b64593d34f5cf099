"""Writes the configuration folder of a node."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cbir.errors import CbirError
from tools.elasticsearch_address import Address

# The shipped options without logs and heap dumps, which tests do not need.
JVM_OPTIONS = """\
-XX:+UseG1GC
-Djava.io.tmpdir=${ES_TMPDIR}
20-:--add-modules=jdk.incubator.vector
-XX:+ExitOnOutOfMemoryError
-Dorg.apache.lucene.store.MMapDirectory.sharedArenaMaxPermits=1
"""
ITERATIONS = 10_000


def write_config(
    own: Path,
    files: Path,
    node: int,
    http_ports: Sequence[int],
    transport_ports: Sequence[int],
    address: Address,
) -> None:
    """Create the folder of a node: its configuration, and folders for data and temporary files."""
    config = own / "config"
    snapshots = own.parent / "snapshots"
    for folder in (config / "jvm.options.d", own / "tmp", snapshots):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(files / "config" / "log4j2.properties", config)
    (config / "jvm.options").write_text(JVM_OPTIONS)
    settings = {
        "cluster.name": "cbir",
        "node.name": f"node-{node}",
        "path.data": own / "data",
        "path.logs": own / "logs",
        "path.repo": snapshots,
        "network.host": "127.0.0.1",
        "http.port": http_ports[node],
        "transport.port": transport_ports[node],
        "cluster.routing.allocation.disk.threshold_enabled": "false",
        "xpack.security.enabled": "true" if address.user else "false",
        **_discovery(transport_ports),
    }
    if address.user and address.password:
        (config / "users").write_text(f"{address.user}:{_hashed(address.password)}\n")
        (config / "users_roles").write_text(f"superuser:{address.user}\n")
        (config / "users").chmod(0o600)
    if address.ca:
        for name in ("ca.pem", "node.pem", "node.key"):
            shutil.copy2(own.parent / name, config)
        settings |= {
            "xpack.security.http.ssl.enabled": "true",
            "xpack.security.http.ssl.key": "node.key",
            "xpack.security.http.ssl.certificate": "node.pem",
            "xpack.security.http.ssl.certificate_authorities": "ca.pem",
        }
    lines = [f"{name}: {value}" for name, value in settings.items()]
    (config / "elasticsearch.yml").write_text("\n".join(lines) + "\n")


def _discovery(transport_ports: Sequence[int]) -> dict[str, str]:
    if len(transport_ports) == 1:
        return {"discovery.type": "single-node"}
    seeds = ", ".join(f'"127.0.0.1:{port}"' for port in transport_ports)
    names = ", ".join(f"node-{node}" for node in range(len(transport_ports)))
    return {
        "discovery.seed_hosts": f"[{seeds}]",
        "cluster.initial_master_nodes": f"[{names}]",
    }


def _hashed(password: str) -> str:
    """Hash a password for the file realm, without starting Java for it."""
    salt = os.urandom(32)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS, 32)
    text = [base64.b64encode(part).decode() for part in (salt, key)]
    return "{PBKDF2}" + "$".join([str(ITERATIONS), *text])


def make_certificates(folder: Path, host: str) -> None:
    """Create a certificate authority (ca.pem) and a certificate from it (node.pem, node.key)."""
    (folder / "names.cnf").write_text(f"subjectAltName=IP:{host},DNS:localhost\n")
    new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj"]
    sign = ["x509", "-req", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key"]
    for command in (
        [*new, "/CN=cbir tests", "-x509", "-days", "3", "-keyout", "ca.key", "-out", "ca.pem"],
        [*new, "/CN=localhost", "-keyout", "node.key", "-out", "node.csr"],
        [*sign, "-days", "3", "-CAcreateserial", "-extfile", "names.cnf", "-out", "node.pem"],
    ):
        try:
            subprocess.run(["openssl", *command], cwd=folder, capture_output=True, check=True)
        except FileNotFoundError as error:
            raise CbirError("no openssl on the path", "install openssl") from error
