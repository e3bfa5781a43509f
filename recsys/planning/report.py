"""A plan in words and as JSON: the table, the first wall, what was assumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from recsys.config import Recipe
from recsys.planning import rates
from recsys.planning.estimates import Estimate, estimates
from recsys.planning.workload import Machines, Workload

#: Part of a need -> what lowers it, where a setting does.
ADVICE: Final = {
    "a range of pairs": "lower data.memory_gb",
    "ids and their moments": "raise model.min_events_for_id, or lower model.dim or workers a node",
    "vectors of all texts": "fewer workers a node, or more memory",
    "blocks of scores": "lower evaluate.batch_size or evaluate.num_actors",
    "rank": "set evaluate.max_rows, or raise evaluate.num_actors",
    "similar texts": "none: all texts are compared with all, in one process",
    "encode": "raise embed.num_actors",
    "epochs": "more workers, GPUs, or fewer trials",
    "all histories": "more memory, or a shorter log",
}

#: Longest that all jobs together may take where a model is made every night.
NIGHT_H: Final = 24.0


@dataclass(frozen=True)
class Wall:
    """A need beside what there is of it.

    Attributes:
        what: job and need, in words.
        part: what most of it is.
        need, limit: in `unit`.
    """

    what: str
    part: str
    need: float
    limit: float
    unit: str

    @property
    def share(self) -> float:
        """How much of the limit is used; above 1 it does not fit."""
        return self.need / self.limit

    def __str__(self) -> str:
        amount = f"{_short(self.need)} of {_short(self.limit)} {self.unit}"
        advice = f" ({ADVICE[self.part]})" if self.part in ADVICE else ""
        return f"{self.what}: {amount}, most of it {self.part}{advice}"


@dataclass(frozen=True)
class Plan:
    """The estimates of a log on machines."""

    log: Workload
    machines: Machines
    recipe: Recipe
    jobs: list[Estimate]

    @staticmethod
    def of(log: Workload, machines: Machines, recipe: Recipe) -> Plan:
        """Estimate all jobs.

        Raises:
            RecipeError: the machines do not hold the workers of one training.
        """
        return Plan(log, machines, recipe, estimates(log, machines, recipe))

    @property
    def hours(self) -> float:
        """Wall time of the pipeline; the service's start is not part of it."""
        return sum(job.hours for job in self.jobs if job.job != "serve")

    def walls(self) -> list[Wall]:
        """Every need beside its limit, the one that is nearest to it, or farthest above, first."""
        found = []
        for job in self.jobs:
            biggest = max(job.process_gb, key=lambda part: job.process_gb[part])
            memory = self.machines.memory_gb
            many = job.num_processes > 1
            what = f"memory of {job.num_processes} processes on a node" if many else "memory"
            found.append(Wall(f"{job.job}, {what}", biggest, job.node_gb, memory, "GB"))
            if job.job != "serve":
                longest = max(job.seconds, key=lambda part: job.seconds[part])
                night = "hours of a night"
                found.append(Wall(f"{job.job}, time", longest, job.hours, NIGHT_H, night))
        return sorted(found, key=lambda wall: -wall.share)

    def times(self, factor: float) -> Plan:
        """The plan of a log so many times as large in all counts, on the same machines."""
        counts = {name: max(1, round(value * factor)) for name, value in asdict(self.log).items()}
        return Plan.of(Workload(**counts), self.machines, self.recipe)

    def room(self) -> float:
        """How many times as large a log fits; below 1 where this one does not."""
        low, high = 2.0**-40, 2.0**40
        while high / low > 1.001:
            middle = (low * high) ** 0.5
            if self.times(middle).walls()[0].share <= 1:
                low = middle
            else:
                high = middle
        return low

    def assumptions(self) -> list[str]:
        """What the arithmetic takes for granted."""
        train = self.recipe.train
        lines = [
            "rates of two cores of an AMD EPYC; time goes down with cores and nodes as far as a "
            "step is divided at all, without a loss",
            f"texts of some 14 tokens; MiniLM, {self.recipe.model.tuning} tuning",
            f"one test basket for {1 / rates.BASKETS_PER_EVENT:.0f} events, as in the demo; "
            f"evaluate.max_rows is {self.recipe.evaluate.max_rows or 'null: all are ranked'}",
            "tune: no trial is stopped early",
            "disk: the log itself and temporary files are not counted; prepare's are as large as "
            "the log",
        ]
        if train.use_gpu:
            lines.append(f"one GPU is worth {rates.GPU_CORES[train.precision]:.0f} cores: an H200")
        return lines

    def lines(self) -> list[str]:
        """For a terminal."""
        log, machines = self.log, self.machines
        lines = [
            "arithmetic from measured rates (recsys/planning/rates.py), not a measurement",
            f"log        {log.events:,} events, {log.items:,} items with {log.texts:,} texts, "
            f"{log.users:,} users",
            f"machines   {machines.nodes} of {machines.cores} cores and {machines.memory_gb:.0f} GB"
            + (f", with {machines.gpus} x GPU" if machines.gpus else ""),
            "",
            f"{'job':<11}{'hours':>10}{'process, GB':>13}{'node, GB':>10}{'disk, GB':>10}  "
            "most of the time goes into",
        ]
        for job in self.jobs:
            longest = max(job.seconds, key=lambda part: job.seconds[part])
            lines.append(
                f"{job.job:<11}{_short(job.hours):>10}{_short(job.largest_gb):>13}"
                f"{_short(job.node_gb):>10}{_short(sum(job.disk_gb.values())):>10}  {longest}"
            )
        total = sum(sum(job.disk_gb.values()) for job in self.jobs)
        lines += [
            f"{'pipeline':<11}{_short(self.hours):>10}{'':>23}{_short(total):>10}  "
            f"{_short(self.hours * machines.nodes)} node-hours",
            "",
            *self._of_walls(),
            "",
            *self._of_requests(),
            *(f"assumed: {each}" for each in self.assumptions()),
        ]
        return lines

    def _of_walls(self) -> list[str]:
        first, *others = self.walls()
        if first.share <= 1:
            room = self.room()
            wall = self.times(room).walls()[0]
            return [f"all fits; the first wall, for a log {_short(room)} times as large: {wall}"]
        return [
            f"first wall: {first}",
            *(f"then: {wall}" for wall in others if wall.share > 1),
        ]

    def _of_requests(self) -> list[str]:
        """Requests a second of a replica, at the nearest catalogue that was measured."""
        measured = min(rates.REQUESTS, key=lambda items: abs(items - self.log.items))
        beyond = "; not measured beyond" if self.log.items > max(rates.REQUESTS) else ""
        return [
            f"serve: {rates.REQUESTS[measured]} /recommend a second from one replica with "
            f"{measured:,} items{beyond}"
        ]

    def as_json(self) -> dict[str, Any]:
        """For a program; hours and GB."""
        return {
            "log": asdict(self.log),
            "machines": asdict(self.machines),
            "jobs": [
                {
                    **asdict(job),
                    "hours": job.hours,
                    "largest_process_gb": job.largest_gb,
                    "node_gb": job.node_gb,
                }
                for job in self.jobs
            ],
            "hours": self.hours,
            "walls": [{**asdict(wall), "share": wall.share} for wall in self.walls()],
            "assumptions": self.assumptions(),
        }


def _short(value: float) -> str:
    """A number of about two digits: 0.0021, 0.35, 42, 1,300."""
    if value >= 100:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{float(f'{value:.2g}'):g}"
