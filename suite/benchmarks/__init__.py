"""Suites of speed rows by name: each module here is one of ``scripts/benchmark.py --suite NAME``.

Its ``measure(*, domains, domain, rounds) -> list[Row]`` gets the seam to the applications, the name given with
``--domain`` (or ``None``) and how many rounds sides take in turns. A suite with flags of its own has
``add_flags(parser)``, and instead of ``measure`` a ``run(options)``, which prints its own tables.
"""
