"""Why: `python -m service.cli` works where the console script is not on the PATH."""

from service.cli import main

main()
