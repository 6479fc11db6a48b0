"""A shard folder as one self-contained HTML page: what is in it, who is who, what was left out and why.

Pictures are inline, styles are in the page, nothing is fetched and no script runs, so that the file can be
mailed, archived with the shards and opened anywhere.
"""

from data_prep.report.page import write_report

__all__ = ["write_report"]
