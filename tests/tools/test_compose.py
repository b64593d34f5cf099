"""The compose files, read as YAML: nothing here starts a container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.elasticsearch_files import VERSION

ROOT = Path(__file__).parents[2]
ONE, THREE = "compose.yaml", "compose.three.yaml"


def services(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / name).read_text())["services"]
    return found


@pytest.mark.parametrize("name", [ONE, THREE])
def test_every_node_is_the_tested_version_by_its_official_name(name: str) -> None:
    for service in services(name).values():
        assert service["image"] == f"elasticsearch:{VERSION}"  # no registry host
        assert service["environment"]["xpack.security.enabled"] == "false"
        for port in service["ports"]:  # without passwords, so from this machine only
            assert port.startswith("127.0.0.1:") and port.endswith(":9200")


@pytest.mark.parametrize("name", [ONE, THREE])
def test_data_outlives_the_containers(name: str) -> None:
    mounts = [service["volumes"][0] for service in services(name).values()]
    volumes = [mount.partition(":")[0] for mount in mounts]
    assert all(mount.endswith(":/usr/share/elasticsearch/data") for mount in mounts)
    assert set(volumes) == set(yaml.safe_load((ROOT / name).read_text())["volumes"])
    assert len(set(volumes)) == len(volumes)


def test_one_node_is_alone() -> None:
    (node,) = services(ONE).values()
    assert node["environment"]["discovery.type"] == "single-node"


def test_three_nodes_know_each_other_and_have_addresses_of_their_own() -> None:
    nodes = services(THREE)
    assert list(nodes) == ["node-0", "node-1", "node-2"]
    for name, node in nodes.items():
        environment = node["environment"]
        assert environment["node.name"] == name
        for setting in ("discovery.seed_hosts", "cluster.initial_master_nodes"):
            assert environment[setting] == ",".join(nodes)
    assert len({node["ports"][0] for node in nodes.values()}) == 3
