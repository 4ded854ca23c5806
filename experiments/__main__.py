"""The command line; without arguments it runs the main job, `run digits`."""

from experiments.utils import signals, terminal

if __name__ == "__main__":
    # Before what takes long to import.
    terminal.open_streams()
    signals.end_at_once()

from experiments.commands._dispatch import main

if __name__ == "__main__":
    main()
