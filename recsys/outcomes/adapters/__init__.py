"""Public logs of exposures, one format a file, in the rows that `recsys exposures` writes."""

from recsys.outcomes.adapters.kuairand import read_kuairand
from recsys.outcomes.adapters.mind import read_mind
from recsys.outcomes.adapters.open_bandit import read_open_bandit

__all__ = ["read_kuairand", "read_mind", "read_open_bandit"]
