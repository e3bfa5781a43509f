"""Any folder of `items.parquet` and `events.parquet` -> a canonical log with a protocol's cuts.

The product knows one way to split: a global time cut. A protocol is laid out in time so that the
product's own jobs, unchanged, train on its training part, tune on its validation part and are
evaluated on its test part:

- `time`: the times as they are; events at one time never see each other.
- `leave_one_out`: each user's last moment with a target is test, the one before it validation, the
  one before that fits the scoring head. Order is kept and time is not: moments lie a day apart, and
  a log without timestamps has one moment a row.
- `splits`: `splits.parquet` names every row's history and target. If its parts follow each other in
  time, the times stay; else they are laid out as in `leave_one_out`. The published order is part of
  the protocol, so the events of a user lie at distinct times in that order.
"""
