"""The `playground` command: a table of commands, a module an idea, one client. The controller decides."""
