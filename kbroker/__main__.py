"""`python -m kbroker` is `kbroker`."""

from kbroker.cli.main import main

main()
