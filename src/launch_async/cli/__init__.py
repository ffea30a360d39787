"""The command line: parses words, sets up signals, exits with a code."""
