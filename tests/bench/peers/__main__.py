"""The stream's bars beside those of its peers, on the same topic: `python -m tests.bench.peers`.

In each repetition: a new topic; the slow peers read its first tenth; the stream is measured as `tests.bench.stream`
does; the other peers read all of it.  Every bar that the log closes must be the same in all of them.

A peer's CPU time is that of its run less that of a run over a topic of 1,000 ticks, for the stream is measured while it
runs, too.  Its speed is that of the whole run, start included: a start mostly waits, which a longer run does while it
works, so that the difference of the two times would be faster than the machine.  The table says what a start takes,
and what a run costs with it.  The stream's start is that of its program, until the bars of 1,000 ticks are in the
table: its program, job server and all, is counted with the cluster and the workers.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from beam_pipelines.runners.local import Endpoints, Stack
from tests.bench.live import family, fresh_stack, spent
from tests.bench.loads import BAR_MS, Load
from tests.bench.peers.bars import Bars, check_same, final_bars
from tests.bench.peers.harness import PEERS, Cost, Count, Peer, provide, run
from tests.bench.stream import CLIENT, Run, arguments, await_ticks, load_of, measure, print_table, report, started

FEW, FEW_A_SECOND = 1000, 5  # ticks; so that their log closes some bars: other bars wait for the clock


class Beside(NamedTuple):
    """One repetition of one peer."""

    ticks: int
    start: Cost
    whole: Cost

    @property
    def per_million(self) -> float:
        return (self.whole.cpu - self.start.cpu) / self.ticks * 1e6

    @property
    def rate(self) -> float:
        return self.ticks / self.whole.seconds


def few_ticks(ends: Endpoints, topic: str) -> Load:
    load = Load(ends.kafka, topic, FEW, rate=FEW_A_SECOND)
    load.release()
    return load


def spread(values: Iterable[float], as_text: Callable[[float], str]) -> str:
    ordered = sorted(values)
    return f"{as_text(statistics.median(ordered))} | {as_text(ordered[0])}-{as_text(ordered[-1])}"


def row(title: str, ticks: int, per_million: list[float], rates: list[float], starts: Sequence[Cost]) -> str:
    costs, speeds = spread(per_million, "{:.2f}".format), spread(rates, "{:,.0f}".format)
    with_start = [cost + start.cpu / ticks * 1e6 for cost, start in zip(per_million, starts, strict=True)]
    begun = [[start.seconds for start in starts], [start.cpu for start in starts], with_start]
    return f"| {' | '.join([title, costs, speeds, *(f'{statistics.median(those):.2f}' for those in begun)])} |"


def start_of_stream(stack: Stack, ends: Endpoints, options: argparse.Namespace, few: Load) -> Cost:
    count = Count(stack)
    with started(stack, ends, options, few.topic) as running:
        await_ticks(ends, running, few.closed)
        so_far = count.cost()
        program = sum(map(spent, family(running.process.pid)))
    return so_far._replace(cpu=so_far.cpu + program)


def one_repetition(
    stack: Stack, ends: Endpoints, options: argparse.Namespace, few: Load, load: Load, peers: list[Peer]
) -> tuple[Cost, Run, dict[Peer, Beside]]:
    made: dict[Peer, Bars] = {}
    results: dict[Peer, Beside] = {}

    def read(those: list[Peer], ticks: int) -> None:
        for peer in those:
            start, _ = run(peer, few.topic, stack)
            whole, made[peer] = run(peer, load.topic, stack)
            results[peer] = Beside(ticks, start, whole)
            print(
                f"{peer.title}: {results[peer].per_million:.2f}, {results[peer].rate:,.0f}/s", start, whole, flush=True
            )

    read([peer for peer in peers if peer.slow], load.warm)
    began = start_of_stream(stack, ends, options, few)
    ours = measure(stack, ends, options, load)
    report("bars", ours)
    print("its start", began, flush=True)
    read([peer for peer in peers if not peer.slow], load.ticks)
    closed = final_bars(ends.postgres_dsn)
    early = {(symbol, start): bar for (symbol, start), bar in closed.items() if start + BAR_MS <= load.warm_until}
    for peer, bars in made.items():
        check_same(early if peer.slow else closed, bars, peer.title)
    return began, ours, results


def main() -> None:
    parser = arguments()
    parser.description = str(__doc__).splitlines()[0]
    modules = [peer.module for peer in PEERS]
    parser.add_argument("--peers", nargs="*", choices=modules, default=modules)
    options = parser.parse_args()
    peers = [peer for peer in PEERS if peer.module in options.peers]
    for peer in peers:
        provide(peer)
    repetitions = []
    with fresh_stack("stream", options.slots, java_jobs=True) as (stack, ends):
        few = few_ticks(ends, f"few-{os.getpid()}")
        # Not counted: the first job of a cluster and the first import of a file are slow.
        start_of_stream(stack, ends, options, few)
        for peer in peers:
            run(peer, few.topic, stack)
        for number in range(options.repetitions):
            load = load_of(ends, options, number)
            repetitions.append(one_repetition(stack, ends, options, few, load, peers))
    starts, ours, theirs = zip(*repetitions, strict=True)
    print_table("bars", ours)
    with_start = "s to start | CPU-s to start | CPU-s per million, with the start"
    print(f"\n| what | CPU-s per million | least-most | ticks a second | least-most | {with_start} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    costs, rates = [it.per_million(*CLIENT) for it in ours], [it.ticks / it.seconds for it in ours]
    print(row("**this stream**", options.ticks, costs, rates, starts))
    for peer in peers:
        runs = [of_peers[peer] for of_peers in theirs]
        costs, rates = [it.per_million for it in runs], [it.rate for it in runs]
        print(row(peer.title, runs[0].ticks, costs, rates, [it.start for it in runs]))


if __name__ == "__main__":
    main()
