"""What becomes of a training's rows: counted, with reasons and lengths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

from lrq.domain.errors import UsageError
from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import Preflight, Spread

REASONS_KEPT = 20


@dataclass
class Tally:
    """Counts what becomes of the rows."""

    rows: int = 0
    cut: int = 0
    dropped: int = 0
    set_aside: int = 0
    also: int = 0  # of the kept ones: from the further file
    reasons: list[str] = field(default_factory=list)
    lengths: list[tuple[int, int, int]] = field(default_factory=list)  # prompt, chosen, rejected
    remarks: dict[str, list[int | str]] = field(default_factory=dict)  # what befell rows that are kept, and their lines

    def set_aside_row(self, line: int | str, reason: str) -> None:
        self.set_aside += 1
        self._explain(line, reason)

    def drop_row(self, line: int | str, reason: str) -> None:
        self.dropped += 1
        self._explain(line, reason)

    def _explain(self, line: int | str, reason: str) -> None:
        if len(self.reasons) < REASONS_KEPT:
            self.reasons.append(f"line {line} {reason}")

    def remark(self, line: int | str, words: str) -> None:
        self.remarks.setdefault(words, []).append(line)

    def notes(self) -> Iterator[str]:
        for words, lines in self.remarks.items():
            where = f"line {lines[0]}" if len(lines) == 1 else f"{len(lines)} rows (line {lines[0]} first)"
            yield f"{where}: {words}"

    def preflight(self, **known: Any) -> Preflight:
        prompts, chosen, rejected = zip(*self.lengths, strict=True) if self.lengths else ((), (), ())
        return Preflight(
            rows=self.rows,
            kept=len(self.lengths),
            cut=self.cut,
            dropped=self.dropped,
            set_aside=self.set_aside,
            also=self.also,
            reasons=tuple(self.reasons),
            notes=tuple(self.notes()),
            prompt=_spread(prompts),
            chosen=_spread(chosen),
            rejected=_spread(rejected),
            total=_spread([p + max(c, r) for p, c, r in self.lengths]),
            **known,
        )


def _spread(lengths: Sequence[int]) -> Spread:
    return Spread(min=min(lengths), median=median_low(lengths), max=max(lengths)) if lengths else Spread()


def check_dropped(preflight: Preflight, job: TrainJob) -> None:
    """Raise UsageError with the remedy if more rows are too long than `job.max_dropped` allows."""
    if preflight.dropped > job.max_dropped * preflight.rows:
        remedy = "set overlong=cut, or raise max_length" if job.overlong == "drop" else "raise max_length"
        raise UsageError(
            f"{preflight.dropped} of {preflight.rows} rows are longer than max_length {job.max_length} and would be "
            f"dropped, more than {job.max_dropped:.0%}: {remedy}, or allow it with max_dropped"
        )
