"""The recipe: everything that decides a run, as data, checked once at load.

A recipe is a YAML file, read into frozen models. A key it does not know is an error that names the
nearest key it does; settings that contradict each other are refused here, not an hour later.
"""

from recsys.config.base import EventName, Fraction, ItemField, Port, Positive, Retraction, Section
from recsys.config.checking import known_keys, recipe_from_dict
from recsys.config.data import Columns, Cuts, Data
from recsys.config.differences import changed_keys, differences
from recsys.config.evaluation import BaselineName, Drift, Embed, Evaluate, Outcomes, Promote
from recsys.config.load import apply_override, load_recipe
from recsys.config.model import Model
from recsys.config.nightly import Nightly, Webhook
from recsys.config.objective import Objective, ObjectiveName, weights_of
from recsys.config.outcome_heads import Heads
from recsys.config.privacy import Privacy
from recsys.config.recipe import RayCluster, Recipe, target_codes
from recsys.config.search import Tune
from recsys.config.searchable import check_space, searched, with_settings
from recsys.config.serving import Access, Arm, Autoscaling, Serve, State, TextEncoderAutoscaling
from recsys.config.space import Distribution
from recsys.config.storage import Storage
from recsys.config.tracking import Tracking
from recsys.config.training import Pretrain, Train

__all__ = [
    "Access",
    "Arm",
    "Autoscaling",
    "BaselineName",
    "Columns",
    "Cuts",
    "Data",
    "Distribution",
    "Drift",
    "Embed",
    "Evaluate",
    "EventName",
    "Fraction",
    "Heads",
    "ItemField",
    "Model",
    "Nightly",
    "Objective",
    "ObjectiveName",
    "Outcomes",
    "Port",
    "Positive",
    "Pretrain",
    "Privacy",
    "Promote",
    "RayCluster",
    "Recipe",
    "Retraction",
    "Section",
    "Serve",
    "State",
    "Storage",
    "TextEncoderAutoscaling",
    "Tracking",
    "Train",
    "Tune",
    "Webhook",
    "apply_override",
    "changed_keys",
    "check_space",
    "differences",
    "known_keys",
    "load_recipe",
    "recipe_from_dict",
    "searched",
    "target_codes",
    "weights_of",
    "with_settings",
]
