"""A program: a Ray cluster on this machine whose nodes come and go as standard input says.

The head lends no CPU; each other node lends one. Each line is answered by one of JSON.
"""

from __future__ import annotations

import json
import sys


def host() -> None:
    """Obey `lose`, `add` and `workers` until standard input ends; the address is told first."""
    from ray.cluster_utils import Cluster
    from ray.util.state import list_actors

    # Of dashboard and agent another Ray of this machine may have the usual ports: take free ones.
    ports = {"dashboard_port": None, "dashboard_agent_listen_port": None}
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1", **ports}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        print(json.dumps(cluster.address), flush=True)
        alive = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
        for line in sys.stdin:
            if line.strip() == "lose":
                cluster.remove_node(nodes.pop(), allow_graceful=False)
            elif line.strip() == "add":
                nodes.append(cluster.add_node(num_cpus=1))
            found = list_actors(cluster.address, filters=alive)
            print(json.dumps([each.pid for each in found]), flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    host()
