"""The campaign that measures what the framework promises: crashes, hostile files, full disks.

Run it from the repository root; the long form takes about half an hour and wants to be alone:

    python -m benchmarks.campaign [--long] [--only A1 A2] [--write docs/reliability.md]

One module a family of faults, each with functions that return a `Figure`. The quick forms are the
tests in tests/campaign, which call the same functions with smaller numbers.
"""
