"""The recommender: a loaded bundle that answers.

`Recommender` is the one class that callers need. Its parts can be read one at a time: `loading`
(scorers from a bundle), `served_items` (ids, titles, filters), `new_items` (items without events)
and `text_encoder` (texts to vectors).
"""

from recsys.recommender.recommender import Recommender

__all__ = ["Recommender"]
