"""A night: its recipe, its way of training, its stages and their state, and who is told."""

from recsys.nightly.deciding import FULL, WARM, Way, recipe_of, way_of
from recsys.nightly.night import Night, Nights
from recsys.nightly.stages import NothingToDo, Stage, go_through
from recsys.nightly.webhook import SECRET_VARIABLE, WebhookSender

__all__ = [
    "FULL",
    "SECRET_VARIABLE",
    "WARM",
    "Night",
    "Nights",
    "NothingToDo",
    "Stage",
    "Way",
    "WebhookSender",
    "go_through",
    "recipe_of",
    "way_of",
]
