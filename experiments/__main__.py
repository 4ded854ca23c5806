"""The command line; without arguments it runs `run digits`."""

from experiments.utils import signals, terminal

if __name__ == "__main__":
    # Before the imports that take long.
    terminal.open_streams()
    signals.end_at_once()

from experiments.commands._dispatch import main

if __name__ == "__main__":
    main()
