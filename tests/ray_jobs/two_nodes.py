"""A program: two Ray nodes on this machine, until its standard input ends."""

from __future__ import annotations

import json
import sys


def host() -> None:
    """Run two nodes until standard input ends; print their addresses as one line of JSON."""
    from ray.cluster_utils import Cluster

    # Of dashboard and agent another Ray of this machine may have the usual ports: take free ones.
    ports = {"dashboard_port": None, "dashboard_agent_listen_port": None}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1", **ports,
        },
    )  # fmt: skip
    try:
        cluster.add_node(num_cpus=4)
        cluster.wait_for_nodes()
        print(json.dumps({"dashboard": f"http://{cluster.webui_url}"}), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    host()
