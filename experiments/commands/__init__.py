"""The commands: a file each, whose `main` takes the options of the command line."""

COMMANDS = {
    "run": "Train and compare methods: `run NAME`, with options to change what NAME "
    "says.",
    "list": "Name the runs that `run` knows.",
    "plot": "Draw a run again from its results; the latest one by default.",
    "table": "Print the tables of a run from its results; the latest one by default.",
    "methods": "Train every method of the library on one problem, for one table.",
    "quadratic": "Follow the methods on two workers' quadratics, as the GMC paper's "
    "section 3.2.",
    "theory": "Check the lemmas and theorems of the GMC paper in numbers.",
    "clocks": "Follow loss against simulated seconds, with stragglers and without.",
    "plan": "Plan what a step would take over a link: which methods and ratios pay.",
    "votes": "Train with workers that lie, and count how often votes err.",
    "pca": "Compare Katyusha X with SVRG where the one is to win.",
    "bench": "Time compressors (`bench compress`) or simulated steps (`bench "
    "simulate`).",
    "launch": "Start several processes here that run a command together: `launch run "
    "NAME`.",
    "join": "Run a command as one process of several, each on a host: `join run NAME`.",
    "network": "Train on links of given rates, and count bytes and seconds on them.",
    "elastic": "Stop with 8 workers, and go on with 4, 2 and 6 from the checkpoint.",
    "docs": "Build the documentation's site, with a page for each public name.",
}
"""What each command does; the module of its name runs it."""

PROGRAM = "python -m experiments"
