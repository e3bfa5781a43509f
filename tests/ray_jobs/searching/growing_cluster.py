"""A program: a search on a cluster of its own that gets a second node in the middle of it.

Prints one line of JSON: what was asked for before the node came, the trials that ran at once before
and after, and the requests that are left.
"""

from __future__ import annotations

import json
import time
from typing import Any

TRIAL_S, NUM_TRIALS, GROWS_AFTER = 12.0, 6, 1


def held(config: dict[str, Any]) -> None:
    """A trial that holds two CPUs for a while."""
    import ray
    from ray import tune
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{"CPU": 1}] * 2)
    ray.get(group.ready())
    began = time.time()
    time.sleep(TRIAL_S)
    remove_placement_group(group)
    tune.report({"ndcg@10": 0.1, "epoch": 1, "began": began, "ended": time.time()})


def main() -> None:
    """Search, and let the cluster grow when the first trial has ended."""
    import ray
    from ray import tune
    from ray.cluster_utils import Cluster
    from ray.util.placement_group import placement_group_table

    from ray_jobs.searching.drawing import algorithm, param_space
    from ray_jobs.searching.room import Room, following
    from recsys.config import recipe_from_dict

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    ray.init(address=cluster.address, log_to_driver=False)
    cuts = {"valid": "2024-03-01", "test": "2024-04-01"}
    recipe = recipe_from_dict(
        {
            "name": "x", "data": {"source": "x", "cuts": cuts}, "train": {"num_workers": 2},
            "tune": {"num_trials": NUM_TRIALS}, "ray": {"address": cluster.address},
        }
    )  # fmt: skip
    told: dict[str, Any] = {}

    class Growing(tune.Callback):
        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **_: Any
        ) -> None:
            ended = [each for each in trials if each.status == "TERMINATED"]
            if len(ended) >= GROWS_AFTER and "grew" not in told:
                pending = _pending(placement_group_table())
                told["demand"] = list(pending[0]["bundles"].values()) if pending else None
                cluster.add_node(num_cpus=2)
                told["grew"] = time.time()

    drawing = algorithm(recipe, Room(recipe).concurrent())
    results = tune.Tuner(
        tune.with_resources(held, {"CPU": 0.01}),
        param_space=param_space(recipe),
        tune_config=tune.TuneConfig(
            metric="ndcg@10", mode="max", num_samples=NUM_TRIALS, search_alg=drawing
        ),
        run_config=tune.RunConfig(callbacks=[Growing(), following(recipe, drawing)], verbose=0),
    ).fit()
    times = [(result.metrics["began"], result.metrics["ended"]) for result in results]
    told["before"] = _at_once([each for each in times if each[0] < told["grew"]])
    told["after"] = _at_once(times)
    told["left_over"] = len(_pending(placement_group_table()))
    print(json.dumps(told), flush=True)
    ray.shutdown()
    cluster.shutdown()


def _pending(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for group in table.values() if group["state"] == "PENDING"]


def _at_once(times: list[tuple[float, float]]) -> int:
    """Most of these spans that hold one moment."""
    return max(sum(began <= at < ended for began, ended in times) for at, _ in times)


if __name__ == "__main__":
    main()
