"""The measured rates that `recsys plan` reckons with, each with its source.

All were taken on two cores of an AMD EPYC (shared) without a GPU unless said. Titles in quotes are
tables of `benchmarks/RESULTS.md`. Core seconds are wall seconds times the cores that worked.
Replace a rate here when its measurement is replaced there; nothing else holds a number.
"""

from __future__ import annotations

from typing import Final

#: What the demo's log is: the rates below were measured on it.
DEMO: Final = {"events": 1_469_307, "items": 92_348, "texts": 19_797, "users": 2_469}

# prepare: one process, the demo's log, 2026-11-30: split 3.0 s, build 5.3 s, pairs of items counted
# and written 6.4 s, added up .8 s, weighed and cut 34 s.

#: Core seconds an event: a part is read, checked, pseudonymised and split by user.
SPLIT_S: Final = 3.0 / DEMO["events"]
#: Core seconds an event: a bucket is sorted into histories and counted.
BUILD_S: Final = 5.3 / DEMO["events"]
#: Core seconds an event: transitions and co-occurrence are counted as of all cuts.
RELATE_S: Final = (6.4 + 0.8 + 34) / DEMO["events"]
#: Cuts that relations are counted as of: head, valid, test, end.
NUM_CUTS: Final = 4
#: Bytes an event of a history in memory: item row, code, timestamp, basket.
HISTORY_BYTES: Final = 4 + 1 + 8 + 4
#: Rows of a part of the log, and GB of the task that splits one (1.17 GB for the demo's part).
PART_ROWS: Final = 2_000_000
SPLIT_GB: Final = 1.2
#: GB of a task that builds a bucket beside the bucket, and bytes an event of it: peaks of .36 GB
#: for 92,000 events and .74 GB for 735,000, each in a process of its own.
BUILD_GB: Final = 0.3
BUCKET_BYTES: Final = 590
#: GB of a task of relations: libraries, 8 M pairs.
RELATE_GB: Final = 1.3
#: Wall seconds of `prepare` beside its work, Ray's tasks among them.
PREPARE_FIXED_S: Final = 6.0

# On disk, the demo's run: histories 5.96 MB, relations 67.1 MB a cut, daily counts 3.29 MB, kept
# pieces 641 MB (most of it pairs of items: baskets of ten purchases), text store 210.9 + 30.4 MB
# for 19,797 texts of 13.9 tokens, 48.9 MB of similar items.

#: Bytes an event: histories and daily counts, compressed.
EVENT_DISK: Final = (5.96e6 + 3.29e6) / DEMO["events"]
#: Bytes an event: what is kept for the next run, pairs of items above all.
KEPT_DISK: Final = 641e6 / DEMO["events"]
#: Bytes an item and cut.
RELATIONS_DISK: Final = 67.1e6 / DEMO["items"]
#: Bytes a text: states at the split in float16 and a vector in float32, 384 wide.
TEXT_DISK: Final = (210.9e6 + 30.4e6) / DEMO["texts"]
#: Bytes an item: its similar items.
SIMILAR_DISK: Final = 48.9e6 / DEMO["items"]
#: Bytes an item of a bundle (430 MiB for 200,000, "Several bundles, several processes").
BUNDLE_DISK: Final = 430 * 2**20 / 200_000

# Texts: MiniLM of six layers, about 14 tokens a text.

#: Texts a core second through all layers, without gradient ("Training speed": 3,806 in 15 s).
ENCODE_TEXTS: Final = 3_806 / 15
#: Layers of that model.
NUM_LAYERS: Final = 6
#: Texts a core second in `pretrain`, an epoch's behaviour sentences among them: two epochs over
#: 3,806 texts in 270 s on two cores ("Texts alone").
PRETRAIN_TEXTS: Final = 2 * 3_806 / (270 * 2)
#: Wall seconds a pair of texts, on two cores: all are compared with all, in one process. 10,000
#: texts took 2.0 s, 20,000 6.7 s, 40,000 15.9 s (2026-11-30).
SIMILAR_PAIR_S: Final = 1e-8
#: Width of a text's vector.
TEXT_WIDTH: Final = 384

# Training: "An epoch's parts, and the evaluation beside its floor", one worker of the demo.

#: Texts a core second through the trained layer with gradient, and core seconds a user's window:
#: steps of 32 windows take 9.5 s / 38, of 8 32 s / 149, with 48 fresh texts each.
GRADIENT_TEXTS: Final = 236.0
WINDOW_S: Final = 0.0015
#: Core seconds a basket of the head's examples, in the first epoch and later; 1,029 baskets.
FIRST_EXAMPLE_S: Final = 5.2 / 1_029
EXAMPLE_S: Final = 1.0 / 1_029
#: Core seconds a basket of the head's fit, an epoch (5.4 to 9.7 s).
HEAD_FIT_S: Final = 7.5 / 1_029
#: Core seconds a basket and item of the validation; 732 baskets.
VALIDATE_S: Final = 2.1 / 732 / DEMO["items"]
#: Wall seconds from a group's start to its first step (start of the workers, imports, stores).
GROUP_START_S: Final = 27.0
#: One GPU for one core, all layers trained: an H200 beside 16 cores ("On a GPU"), in float32 and
#: in bfloat16. Other GPUs are slower.
GPU_CORES: Final = {"float32": 31.0 * 16, "bfloat16": 47.0 * 16}

# embed

#: Wall seconds beside its work (actors, the bundle's hashes).
EMBED_FIXED_S: Final = 8.0
#: Wall seconds an item and cell of the index, on two cores, and items that its cells are fitted on
#: in all rounds; 200,000 items of width 66 took 6.0 s, 800,000 25 s (2026-11-30).
INDEX_S: Final = 4.4e-9
INDEX_SAMPLE: Final = 8 * 100_000

# evaluate: seven models over 512 baskets took 6.1 s of CPU, ours 3.81 ms a basket.

#: Core seconds a basket and item: the ranker, and one baseline.
RANK_S: Final = 3.81e-3 / DEMO["items"]
BASELINE_S: Final = (6.1 / 512 - 3.81e-3) / 6 / DEMO["items"]
#: Wall seconds beside its work (actors, baselines' fit, intervals).
EVALUATE_FIXED_S: Final = 15.0
#: Test baskets an event of the log: 13,176 in the demo, whose test window is a month of the year.
BASKETS_PER_EVENT: Final = 13_176 / DEMO["events"]
#: Matrices of baskets x items, float32, that a process holds while it ranks.
RANK_MATRICES: Final = 3

# Processes: PSS while the log of UCI Online Retail is trained, 2026-11-30 (3,922 items, so that
# hardly anything of it grows).

#: GB of a process with torch and a model (the pipeline's driver: 429 MB).
WORKER_GB: Final = 0.45
#: GB of a training worker (1,058 MB of its own).
TRAIN_WORKER_GB: Final = 1.1
#: GB of a trial beside its workers: its function, controller, coordinator of splits, cleaner.
TRIAL_GB: Final = 0.8
#: GB of Ray on a node: raylet, agents, idle workers.
RAY_GB: Final = 1.0

# serve: "Serving beside other servers", "Several bundles", "The stores of users".

#: GB of a node that serves, Ray, HAProxy, text encoder and one replica of a small catalogue.
SERVE_NODE_GB: Final = 2.4
#: GB of every further replica, the bundle's pages left out, which a node holds once.
REPLICA_GB: Final = 0.35
#: Items -> /recommend requests a second of a replica, 16 connections, two cores for all.
REQUESTS: Final = {10_000: 393, 100_000: 268, 1_000_000: 91}
#: Redis: bytes a user and bytes an event of the log (692 bytes for 20 events), events seeded a
#: second. SQLite: bytes an event (2,288 for 20), events seeded a second.
REDIS_USER, REDIS_EVENT, REDIS_SEED = 92, 30, 48_000
SQLITE_EVENT, SQLITE_SEED = 2_288 / 20, 36_700
