"""Runs the command line: `python -m minillmlib` is the program `minillmlib`."""

from minillmlib.cli import main

main()
