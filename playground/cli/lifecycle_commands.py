"""The table of the commands that have a workspace start, stop and so on, and of its console. Data only."""

from __future__ import annotations

from playground.cli.command import DONE, JSON, NO, TIMEOUT, Command, Option, option

_LATE = (3, "accepted, and not so within --timeout; stderr names what is missing")
_WORKSPACE = option("workspace", metavar="WORKSPACE", complete="workspace", help="NAME or PLAYGROUND/NAME")


def _verb(name: str, summary: str, description: str, *more: Option) -> Command:
    options = (
        _WORKSPACE,
        *more,
        TIMEOUT,
        option("--no-wait", action="store_true", help="return once it is accepted"),
        JSON,
    )
    examples = ((f"playground {name} worker-0", ""),)
    usage = f"{name} WORKSPACE [options]"
    return Command(name, summary, usage, f"lifecycle:{name}", description, examples, (DONE, NO, _LATE), options)


LIFECYCLE_COMMANDS = (
    _verb(
        "start",
        "start a workspace that was stopped",
        "It keeps its addresses and names. One that is suspended or saved goes on where it was.",
    ),
    _verb(
        "stop",
        "stop a workspace; it keeps its addresses",
        """\
It is asked to end, and made to once it has had its time; what was saved of its memory goes. Its addresses, MACs,
names and disks stay its own until it is started again.""",
        option("--grace", metavar="S", type=float, help="seconds that it has to end (default: as its file says)"),
    ),
    _verb(
        "reboot",
        "stop a workspace, and start it again",
        "As `stop` and `start` after it, done once; an edit of its file that waits for a start takes effect.",
    ),
    _verb(
        "suspend",
        "have a machine stand still, in memory",
        """\
Its processors stop between two instructions; memory, addresses, rules and connections stay as they are on its host.
It stays so through restarts of everything but its host. For virtual machines.""",
    ),
    _verb(
        "resume",
        "have a suspended machine go on",
        "Also one that somebody else's tool suspended, or that stands still because a disk of its host was full.",
    ),
    _verb(
        "save",
        "put a machine's memory into a file, and end it",
        """\
What it had in memory is kept on its host, which is free of it until `restore`. Its addresses, names and disks stay
its own. For virtual machines.""",
    ),
    _verb(
        "restore",
        "have a saved machine go on where it was",
        "Its clock stands where it stood: what runs in it has to set it.",
    ),
    Command(
        "console",
        "join this terminal to a machine's serial line",
        "console WORKSPACE [options]",
        "console:console",
        """\
Keys go to the machine as they are; Ctrl-] leaves. One at a time has the line. With --log, what the machine has said
on it so far is shown instead, to any number of readers.""",
        (
            ("playground console web", "Ctrl-] leaves"),
            ("playground console web --log --follow", "read only: what it has said, and says from now on"),
        ),
        (DONE, NO),
        (
            _WORKSPACE,
            option("--force", action="store_true", help="take the line from whoever has it"),
            option("--log", action="store_true", help="show what it has said"),
            option("--follow", action="store_true", help="with --log: go on as it says more"),
        ),
    ),
)
