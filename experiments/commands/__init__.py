"""The commands: one file each, whose `main` takes the command-line options."""

COMMANDS = {
    "run": "Train and compare methods: `run NAME`; options override NAME's settings.",
    "list": "List the named runs.",
    "tokens": "Train a tokenizer on a text, and write the text as tokens.",
    "plot": "Draw the figures of a run or a study again, by default of the latest.",
    "table": "Print the tables of a run or a study again, by default of the latest.",
    "methods": "Train every method of the library on one problem, in one table.",
    "equal_bytes": "Compare methods that send little, at equal steps and equal bytes.",
    "adam": "Train a small transformer with Adam, over channels, ratios and workers.",
    "quadratic": "Train two workers with a quadratic each (GMC paper, section 3.2).",
    "theory": "Check the lemmas and theorems of the GMC paper numerically.",
    "clocks": "Measure loss against simulated seconds, with and without stragglers.",
    "plan": "Predict the time of a training over a link: which methods and ratios pay.",
    "choices": "Train what the planner chooses: do safe methods reach dense's loss?",
    "votes": "Train with faulty workers, and count how often majority votes err.",
    "pca": "Compare Katyusha X with SVRG on a leading eigenvector.",
    "bench": "Measure compressors, simulation, compiling, programs, or this device.",
    "launch": "Run a command in several processes on this machine: `launch run NAME`.",
    "join": "Run a command as one of several processes, on any host: `join run NAME`.",
    "network": "Train over links of given rates; measure bytes and seconds.",
    "elastic": "Train with 8 workers, then resume with 4, 2 and 6 from the checkpoint.",
    "docs": "Build the site of the pages and of every public name.",
}
"""What each command does; the module of the same name runs it."""

PROGRAM = "python -m experiments"
