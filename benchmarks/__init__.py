"""
What antflow costs, beside what one would pick instead.

    nox -s bench                                  # all of it; writes docs/benchmarks.md and .svg
    nox -s bench -- no-op sleeps --rounds 9       # single workloads; prints their tables
    nox -s bench -- --list                        # what there is
    nox -s bench -- --quick                       # antflow beside asyncio.Queue, in seconds

Without nox, in the root of the clone, where antflow, trio and uvloop are installed:

    python -m benchmarks [the same words]

Each measurement is made in a fresh process (`child`), which runs one contender once at a smaller
size, measures it, several times if it is short, checks the results and their order, and prints one
line of JSON. The rounds are interleaved: the first one measures each contender once, and so on, so
that a change in the speed of the machine meets all alike. The figures are medians, the ratios are
ratios of medians. Look at the ratios: microseconds differ from machine to machine.

Libraries that one might pick instead (`peers`) get virtual environments of their own, below
`benchmarks/.environments`, when they are first needed; one that cannot be installed is named and
left out.
"""
