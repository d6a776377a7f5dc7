"""The `interlcm` command: one file a subcommand."""
