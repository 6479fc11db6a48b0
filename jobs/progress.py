"""Progress of long work: a bar with count, rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

LINE_EVERY_S = 10.0


class ProgressBar:
    """Draws what a ``data_prep.records.Progress`` callback reports: call it with (stage, done, total).

    On a terminal each stage is one tqdm bar on stderr. Elsewhere (a log file, CI) a stage prints a line when it
    starts, at most every ten seconds, and when it ends. Use it as a context manager so that bars are closed.
    """

    def __init__(self) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._live = sys.stderr.isatty()
        self._stage = ""
        self._bar: tqdm[None] | None = None
        self._started = self._printed = 0.0
        self._first = 0
        self._busy = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report ``done`` of ``total`` items of a stage; a new stage name closes the one before.

        What a stage reports first was done before it, and does not count in its rate. ``note`` is shown behind.
        """
        if stage != self._stage:
            self.close()
            self._stage, self._started, self._printed = stage, time.monotonic(), 0.0
            self._first = done
            if self._live:
                self._bar = self._tqdm(
                    total=total, initial=done, desc=stage, unit="", dynamic_ncols=True, file=sys.stderr
                )
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_postfix_str(note or self._busy, refresh=False)
            self._bar.update(done - self._bar.n)
        elif not self._live:
            self._line(stage, done, total, note or self._busy)

    def busy(self, share: float) -> None:
        """From now on until the stage ends, show that its workers are at work for this share of their time."""
        self._busy = f"workers {share:.0%} busy"

    def close(self) -> None:
        """End the bar that is open, if any."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._stage = self._busy = ""

    def _line(self, stage: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if done < total and now - self._printed < LINE_EVERY_S:
            return
        self._printed = now
        spent = now - self._started
        text = f"{stage}: {done}/{total}"
        if done > self._first and spent > 0:
            rate = (done - self._first) / spent
            text += f", {rate:.2f}/s, {spent:.0f} s spent"
            if done < total:
                text += f", {(total - done) / rate:.0f} s left"
        sys.stderr.write(text + (f", {note}" if note else "") + "\n")
        sys.stderr.flush()
