"""`python -m minillmlib.cli` is the program `minillmlib`."""

from minillmlib.cli import main

main()
