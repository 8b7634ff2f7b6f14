"""Run one case, the cases of some formats, or all; print the table of outcomes."""

import sys
from collections import Counter

from tests.corruption.worker import EACH, FORMATS, Case, Worker

OUTCOMES = ("equal", "refused", "reported", "failed")


def main(words: list[str]) -> int:
    if len(words) == 2 and words[1].isdigit():
        with Worker() as worker:
            print(*worker(Case(words[0], int(words[1]))), sep="\n")
        return 0
    total: Counter[str] = Counter()
    print(f"| format | {' | '.join(OUTCOMES)} |\n|---|---|---|---|---|")
    for format in words or FORMATS:
        with Worker() as worker:
            results = {seed: worker(Case(format, seed)) for seed in range(EACH)}
        counts = Counter(result.outcome for result in results.values())
        total += counts
        _print(format, counts)
        for seed, result in results.items():
            if result.outcome == "failed":
                print(f"{Case(format, seed)}: {result.said}"[:400], file=sys.stderr, flush=True)
    if not words:
        _print("all", total)
    return min(total["failed"], 1)


def _print(name: str, counts: Counter[str]) -> None:
    print(f"| {name} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
