"""Damaged files: small valid files of every format, seeded mutations of them, and independent decoders to compare with.

``python -m tests.corruption FORMAT SEED`` repeats one case; ``python -m tests.corruption`` runs all of them and prints
the table of docs/reliability.md.
"""
