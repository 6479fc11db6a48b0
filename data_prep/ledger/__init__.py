"""The ledger: one row per item and decision, as Parquet that any data tool opens.

It answers what became of a clip, track or window: kept, dropped (by which rule, with which number against which
limit) or quarantined (in which stage, with which error, after how many attempts, and the command that tries
again).
"""

from data_prep.ledger.rows import LEDGER, count_by_rule, failing_most, read, write

__all__ = ["LEDGER", "count_by_rule", "failing_most", "read", "write"]
