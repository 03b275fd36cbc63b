"""``python -m sourcesep``: the command line."""

from sourcesep.cli import main

if __name__ == "__main__":
    main(prog_name="sourcesep")
