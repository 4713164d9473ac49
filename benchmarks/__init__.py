"""
The cost of antflow, compared with alternatives.

    nox -s bench                                  # everything; writes docs/benchmarks.md and .svg
    nox -s bench -- no-op sleeps --rounds 9       # single workloads; prints their tables
    nox -s bench -- --list                        # the names of the workloads
    nox -s bench -- --quick                       # antflow and asyncio.Queue, in seconds

Without nox, in the root of a clone, with antflow, trio and uvloop installed:

    python -m benchmarks [the same arguments]

Each measurement is made in a fresh process (`child`). It runs one contender at a smaller size, then
measures it (several times if it is short), checks the results and their order, and prints one line
of JSON. The rounds are interleaved: each round measures every contender once, so that a change in
the speed of the machine affects all of them. Figures are medians, and ratios are ratios of medians.
Compare the ratios: microseconds differ from machine to machine.

The alternatives (`peers`) are installed in virtual environments of their own, below
`benchmarks/.environments`, when they are first needed. One that cannot be installed is named and
left out.
"""
