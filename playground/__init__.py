"""People and time: files, records, admission, the store, controller and agent, workspaces, API and command line."""

__version__ = "0.1.0"
