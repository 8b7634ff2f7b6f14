"""Run one case, the cases of some formats, or all; print the table of outcomes."""

import sys
from collections import Counter

from tests.corruption.worker import FORMATS, Case, Worker

EACH = 100


def main(words: list[str]) -> int:
    if len(words) == 2 and words[1].isdigit():
        with Worker() as worker:
            print(*worker(Case(words[0], int(words[1]))), sep="\n")
        return 0
    table, failed = {}, 0
    print("| format | equal | refused | reported | failed |\n|---|---|---|---|---|")
    for format in words or FORMATS:
        with Worker() as worker:
            results = {seed: worker(Case(format, seed)) for seed in range(EACH)}
        counts = table[format] = Counter(result.outcome for result in results.values())
        print(
            f"| {format} | {' | '.join(str(counts[name]) for name in ('equal', 'refused', 'reported', 'failed'))} |",
            flush=True,
        )
        for seed, result in results.items():
            if result.outcome == "failed":
                failed += 1
                print(f"{Case(format, seed)}: {result.said}"[:400], file=sys.stderr, flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
