"""The priced plan of a fit: engine, passes, bytes, seconds, peak memory of every process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dask.utils import format_bytes

from lrgls_dask.compression.by_pattern import PAYS
from lrgls_dask.page import described
from lrgls_dask.plan.rates import NOMINAL, Rates, machine_rates
from lrgls_dask.plan.work import Work
from lrgls_dask.rows.purposes import MEANS, OLS, RESIDUALS, in_words

__all__ = ["Plan"]

CACHED = 0.1  # of the time of reading, that of reading again what the system's cache can hold
NOMINAL_CACHE = 4_000_000_000  # bytes of it, whatever machine this is


@dataclass(frozen=True)
class Plan:
    """The priced plan of a fit; ``print(plan)`` shows it.

    holds_sigma : whether the (K, K) residual covariance is held; without it a streamed fit is EM on its products.
    most_patterns : patterns of missing responses whose rows are compressed, 0 if all are streamed, None where none may
    be missing.  bytes_per_pattern : what each of them takes of the peak.
    keeps_rows : whether rows of more patterns are held in memory, which saves reading them again.
    holds_cov : whether the (P, P) covariance of the coefficients of a fit with missing responses is part of the peaks.
    purposes : expected passes over the data by what they are for, an upper guess for "stream"; the words are those of
    ``fit.trace["read_for"]``.  bytes_per_pass : decoded bytes read by each.
    n_patterns, pattern_rows, pattern_bytes : of a compressed system whose rows miss responses, their patterns, the rows
    that stand for all of them and what these take; 0 where it misses none.
    keeps_x : whether a streamed fit finds X'X by one pass more, and keeps it, or rows that stand for it, for standard
    errors: where that too stays below the limits.  x_bytes : what it adds to worker_peak and client_peak.
    look_bytes : read before all that by unusable="skip", which looks for equations that cannot be estimated.
    next_best : how many numbers of factors may be fitted in turn after the best, where improper="avoid" passes over it;
    each takes `next_passes` more.
    made_bytes : of columns of a frame, read when the system was made of it, and not again.
    errors : what standard errors of all coefficients take after the fit, in words; "" where they come with it.
    work : what all of it takes beside reading.  stored : whether rows are read from storage, and not in memory already.
    read_rate : bytes a second that storage gives to each process, None where that of this machine is taken.
    rates : of one thread, None where those of this machine are taken.
    limit_given : whether memory_limit was given; only then rows are kept in memory to save reading them again.
    pinned_rows, pinned_bytes : how many of the first rows are, from the pass that reads them first, and what they take,
    as part of the peaks.
    instead : what the other engines would take that fit too.
    complete_peaks : worker_peak and client_peak where none of the responses that may be missing is; zero once that is
    known.
    worker_peak, client_peak : predicted peak bytes of one worker process and of this one; with threads they are the
    same process and both hold the whole.  memory_limit, client_limit : what they may use.
    """

    engine: Literal["compress", "stream"]
    holds_sigma: bool
    reason: str
    n_obs: int
    n_equations: int
    n_regressors: int
    n_coefficients: int
    purposes: dict[str, int]
    bytes_per_pass: int
    n_blocks: int
    largest_block: int
    n_workers: int
    n_threads: int
    in_process: bool
    worker_peak: int
    client_peak: int
    memory_limit: int
    client_limit: int
    most_patterns: int | None = None
    holds_cov: bool = False
    bytes_per_pattern: int = 0
    n_patterns: int = 0
    pattern_rows: int = 0
    pattern_bytes: int = 0
    keeps_rows: bool = False
    keeps_x: bool = False
    x_bytes: tuple[int, int] = (0, 0)
    look_bytes: int = 0
    made_bytes: int = 0
    next_best: int = 0
    errors: str = ""
    work: Work | None = None
    stored: bool = False
    read_rate: float | None = None
    rates: Rates | None = None
    limit_given: bool = False
    pinned_rows: int = 0
    pinned_bytes: int = 0
    complete_peaks: tuple[int, int] = (0, 0)
    instead: tuple[Plan, ...] = ()

    @property
    def passes(self) -> int:
        """Expected passes over the data."""
        return sum(self.purposes.values())

    @property
    def next_passes(self) -> int:
        """Passes of a fit of the next best number of factors, which has what the first ones have told."""
        if not self.next_best:
            return 0
        return sum(n for purpose, n in self.purposes.items() if purpose not in (MEANS, OLS, RESIDUALS))

    @property
    def seconds(self) -> float:
        """About how long the fit takes at `rates`, or at those of this machine, which are measured where nobody has
        yet, in about a second; storage is that of these rates too where no `gb_per_s` was given."""
        rates, again = self.rates or machine_rates(), CACHED
        if self.read_rate or self.bytes_per_pass > self.memory_limit * self.n_workers:
            again = 1.0
        rate = (self.read_rate or rates.read) * self.n_workers
        again *= 1.0 - self.pinned_bytes / max(1, self.bytes_per_pass)
        return self._seconds(rates, self.n_workers * self.n_threads, rate, again)

    @property
    def nominal_seconds(self) -> float:
        """The same on two threads that do what is usual, whatever machine this is, of a fit that keeps no rows in
        memory: what engines are chosen by."""
        again = CACHED if self.bytes_per_pass <= NOMINAL_CACHE else 1.0
        return self._seconds(NOMINAL, 2, NOMINAL.read, again)

    def _seconds(self, rates: Rates, n_threads: int, rate: float, again: float) -> float:
        """rate : bytes a second of all processes together.  again : what reading again takes of reading once."""
        assert self.work is not None
        reading = (1.0 + again * (self.passes - 1)) * self.bytes_per_pass / rate if self.stored else 0.0
        return self.work.seconds(rates, n_threads, reading)

    def taking(self, purposes: dict[str, int]) -> Plan:
        """The same in other passes."""
        work = None if self.work is None else self.work.times(sum(purposes.values()) / max(1, self.passes))
        return replace(self, purposes=purposes, work=work)

    def reading(self, rate: float) -> Plan:
        """The same where storage gives so many bytes a second to each process."""
        return replace(self, read_rate=rate, instead=tuple(each.reading(rate) for each in self.instead))

    def at(self, rates: Rates) -> Plan:
        """The same where each thread does this in a second."""
        return replace(self, rates=rates, instead=tuple(each.at(rates) for each in self.instead))

    def peak_of(self, n_patterns: int) -> int:
        """The same as `peak` where so many patterns of missing responses are found, of those that are compressed."""
        return self.peak - max(0, (self.most_patterns or 0) - n_patterns) * self.bytes_per_pattern

    @property
    def peak(self) -> int:
        """The largest predicted peak of any one process."""
        return max(self.worker_peak, self.client_peak)

    @property
    def fits(self) -> bool:
        """Whether every process stays below its limit."""
        return self.worker_peak <= self.memory_limit and self.client_peak <= self.client_limit

    def __str__(self) -> str:
        place = (
            f"{self.n_threads} threads of this process"
            if self.in_process
            else (f"{self.n_workers} workers of {self.n_threads} threads each")
        )
        peak = (
            f"{format_bytes(self.client_peak)} in this process"
            if self.in_process
            else f"{format_bytes(self.worker_peak)} on each worker, {format_bytes(self.client_peak)} on the client"
        )
        if self.bytes_per_pattern:
            peak += f", {format_bytes(self.bytes_per_pattern)} less for each pattern fewer than {self.most_patterns}"
        if 0 < max(self.complete_peaks) < self.peak:
            peak += f", {format_bytes(max(self.complete_peaks))} where none is missing"
        return "\n".join(
            [
                f"Plan: engine {self.engine!r}, because {self.reason}",
                f"  data    {self.n_obs:,} rows; {self.n_equations:,} equations, {self.n_regressors:,} distinct "
                f"regressors, {self.n_coefficients:,} coefficients",
                *self._holes(),
                f"  reads   {self._reads()}",
                *([f"  errors  {self.errors}"] if self.errors else []),
                f"  runs    on {place}",
                f"  memory  peak {peak}; limit {format_bytes(self.memory_limit)}",
                f"  time    about {_shown(self.seconds)}",
                *(f"  instead {each._in_short()}" for each in self.instead),
            ]
        )

    def _repr_html_(self) -> str:
        """The plan as a notebook shows it."""
        return described(str(self))

    def _in_short(self) -> str:
        times = "one pass" if self.passes == 1 else f"about {self.passes} passes"
        return f"engine {self.engine!r}: {times}, about {_shown(self.seconds)}, peak {format_bytes(self.peak)}"

    def _holes(self) -> list[str]:
        """What patterns of missing responses cost that are compressed already."""
        if not self.n_patterns:
            return []
        lines = [
            f"  holes   {self.n_patterns:,} patterns of missing responses: {self.pattern_rows:,} rows, "
            f"{format_bytes(self.pattern_bytes)}, stand for {self.n_obs:,}"
        ]
        if self.pattern_rows > PAYS * self.n_obs:
            lines.append("          so many that compressing does not pay: fit the System itself, with missing='em'")
        return lines

    def _reads(self) -> str:
        look = f"; {format_bytes(self.look_bytes)} of responses before, for unusable='skip'" if self.look_bytes else ""
        look += f"; {format_bytes(self.made_bytes)} of columns to make the system" if self.made_bytes else ""
        if self.next_passes:
            look += (
                f"; about {self.next_passes} times more for each number of factors that improper='avoid' passes over, "
                f"{self.next_best} at most"
            )
        if self.passes == 0:
            return "nothing"
        times = "once" if self.passes == 1 else f"about {self.passes} times"
        if self.most_patterns and self.engine == "compress" and self.passes > 1:  # before the first pass counts them
            times = f"once, or {times} where more than {self.most_patterns} patterns are found"
        blocks = f"in {self.n_blocks:,} blocks of at most {format_bytes(self.largest_block)}"
        purposes = f", for {in_words(self.purposes)}" if self.passes > 1 else ""
        return f"{format_bytes(self.bytes_per_pass)} {times}, {blocks}{purposes}{self._pinned()}{look}"

    def _pinned(self) -> str:
        """What of the rows is read once only."""
        if not self.pinned_bytes:
            return ""
        first = "all rows" if self.pinned_rows == self.n_obs else f"the first {self.pinned_rows:,} rows"
        later = self.bytes_per_pass - self.pinned_bytes
        left = f"reads {format_bytes(later)}" if later else "reads nothing"
        return f"; {first}, {format_bytes(self.pinned_bytes)}, stay in memory, so that each pass after the first {left}"


def _shown(seconds: float) -> str:
    """Two digits of seconds, minutes or hours."""
    for size, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {name}" if seconds < 100 * size else f"{seconds / size:,.0f} {name}"
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds:.0f} s"
