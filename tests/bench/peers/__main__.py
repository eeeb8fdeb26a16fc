"""The stream's bars beside those of its peers, on the same topic: `python -m tests.bench.peers`.

In each repetition: a new topic; the slow peers read its first tenth; the stream is measured as `tests.bench.stream`
does; the other peers read all of it.  Every bar that the log closes must be the same in all of them.

A peer's CPU time is that of its run less that of a run over a topic of 1,000 ticks, for the stream is measured while it
runs, too.  Its speed is that of the whole run, start included: a start mostly waits, which a longer run does while it
works, so that the difference of the two times would be faster than the machine.  The table says what a start takes,
and what the run costs with it.
"""

import os
import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

from beam_pipelines.runners.local import Endpoints, Stack
from tests.bench.live import fresh_stack
from tests.bench.loads import BAR_MS, Load
from tests.bench.peers.bars import Bars, check_same, final_bars
from tests.bench.peers.harness import PEERS, Cost, Peer, provide, run
from tests.bench.stream import CLIENT, Run, arguments, load_of, measure, print_table, report

FEW = 1000  # ticks


class Beside(NamedTuple):
    """One repetition of one peer."""

    ticks: int
    start: Cost
    whole: Cost

    @property
    def per_million(self) -> float:
        return (self.whole.cpu - self.start.cpu) / self.ticks * 1e6

    @property
    def per_million_with_start(self) -> float:
        return self.whole.cpu / self.ticks * 1e6

    @property
    def rate(self) -> float:
        return self.ticks / self.whole.seconds


def few_ticks(ends: Endpoints, topic: str) -> str:
    load = Load(ends.kafka, topic, FEW)
    load.release()
    return load.topic


def spread(values: Iterable[float], as_text: Callable[[float], str]) -> str:
    ordered = sorted(values)
    return f"{as_text(statistics.median(ordered))} | {as_text(ordered[0])}-{as_text(ordered[-1])}"


def row(title: str, per_million: list[float], rates: list[float], *starts: list[float]) -> str:
    costs, speeds = spread(per_million, "{:.2f}".format), spread(rates, "{:,.0f}".format)
    begun = [f"{statistics.median(those):.2f}" for those in starts] or [""] * 3
    return f"| {' | '.join([title, costs, speeds, *begun])} |"


def row_of(peer: Peer, runs: list[Beside]) -> str:
    return row(
        peer.title,
        [it.per_million for it in runs],
        [it.rate for it in runs],
        [it.start.seconds for it in runs],
        [it.start.cpu for it in runs],
        [it.per_million_with_start for it in runs],
    )


def one_repetition(
    stack: Stack, ends: Endpoints, few: str, load: Load, peers: list[Peer], stream: Callable[[Load], Run]
) -> tuple[Run, dict[Peer, Beside]]:
    made: dict[Peer, Bars] = {}
    results: dict[Peer, Beside] = {}

    def read(those: list[Peer], ticks: int) -> None:
        for peer in those:
            start, _ = run(peer, few, stack)
            whole, made[peer] = run(peer, load.topic, stack)
            results[peer] = Beside(ticks, start, whole)
            print(
                f"{peer.title}: {results[peer].per_million:.2f}, {results[peer].rate:,.0f}/s", start, whole, flush=True
            )

    read([peer for peer in peers if peer.slow], load.warm)
    ours = stream(load)
    report("bars", ours)
    read([peer for peer in peers if not peer.slow], load.ticks)
    closed = final_bars(ends.postgres_dsn)
    early = {(symbol, start): bar for (symbol, start), bar in closed.items() if start + BAR_MS <= load.warm_until}
    for peer, bars in made.items():
        check_same(early if peer.slow else closed, bars, peer.title)
    return ours, results


def main() -> None:
    parser = arguments()
    parser.description = str(__doc__).splitlines()[0]
    modules = [peer.module for peer in PEERS]
    parser.add_argument("--peers", nargs="*", choices=modules, default=modules)
    options = parser.parse_args()
    peers = [peer for peer in PEERS if peer.module in options.peers]
    for peer in peers:
        provide(peer)
    ours: list[Run] = []
    theirs: list[dict[Peer, Beside]] = []
    with fresh_stack("stream", options.slots, java_jobs=True) as (stack, ends):
        few = few_ticks(ends, f"few-{os.getpid()}")
        for peer in peers:
            run(peer, few, stack)  # not counted: the first job of a cluster and the first import of a file are slow
        for number in range(options.repetitions):
            load = load_of(ends, options, number)
            of_stream, of_peers = one_repetition(
                stack, ends, few, load, peers, lambda load: measure(stack, ends, options, load)
            )
            ours.append(of_stream)
            theirs.append(of_peers)
    print_table("bars", ours)
    started = "s to start | CPU-s to start | CPU-s per million, with the start"
    print(f"\n| what | CPU-s per million | least-most | ticks a second | least-most | {started} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    print(row("**this stream**", [it.per_million(*CLIENT) for it in ours], [it.ticks / it.seconds for it in ours]))
    for peer in peers:
        print(row_of(peer, [repetition[peer] for repetition in theirs]))


if __name__ == "__main__":
    main()
