"""Measures what the framework promises when inputs, disks and processes fail (docs/reliability.md).

The quick form is part of the test suite (`test_quick`). The long form takes about half an hour on
a machine without other load. Run it from the repository root:

    python -m tests.reliability --long [--only A1 A2] [--write docs/reliability.md]

Every module covers one family of faults; its functions return a `Figure`, the row of the table.
"""
