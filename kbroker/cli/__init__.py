"""The command line: `kbroker --help`."""
