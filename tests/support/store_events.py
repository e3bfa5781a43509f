"""Events and seeds for tests of the user stores."""

import numpy as np
import pyarrow as pa

from recsys.schema import HISTORIES
from recsys.state import StateEvent

#: Events of a user that a store keeps, where a test says nothing else.
CAP = 5


def num_new(outcomes):
    return outcomes.count("new")


def event(user="u", event_id="e", item="i", code=2, timestamp=0):
    return StateEvent(user, event_id, item, code, timestamp)


def histories(users):
    """`{user: [(item_row, code, timestamp), ...]}` as a table."""
    columns = [[[e[part] for e in events] for events in users.values()] for part in range(3)]
    baskets = [list(range(len(events))) for events in users.values()]
    return pa.table([list(users), *columns, baskets], schema=HISTORIES)


ITEM_IDS = np.array(["a", "b", "c"])
