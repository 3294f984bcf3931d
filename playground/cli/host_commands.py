"""The table of the commands below `host`. Data only."""

from __future__ import annotations

from playground.cli.command import DONE, JSON, NO, TIMEOUT, Command, option

_HOST = option("host", metavar="HOST", complete="host", help="the host")

HOST_COMMANDS = (
    Command(
        "host drain",
        "empty a host, and keep it empty",
        "host drain HOST [options]",
        "draining:drain",
        """\
Places nothing on HOST any more, moves what it runs to other hosts, live, and hands its gateways over; what is
stopped is placed elsewhere. Waits until it is empty, or until what is left can't leave, and says of each why. The
wish stands, also after Ctrl-C, a timeout, and over restarts of controller and host, until `host resume`.""",
        (
            ("playground host drain n1", ""),
            ("playground host drain n1 --parallel 4 --timeout 900", "four moves at a time"),
            ("playground host drain n1 --json | jq -r '.left[] | .object + \": \" + .cause'", "what is left, and why"),
        ),
        (
            (0, "the host is empty"),
            (1, "refused; or something can't leave, stderr names each with its cause: the wish stands"),
            (3, "not empty within --timeout; it goes on"),
            (130, "ended by Ctrl-C; it goes on"),
        ),
        (
            _HOST,
            option(
                "--parallel", metavar="N", type=int, help="moves at a time, 1 to 64 (default: as before; at first 2)"
            ),
            TIMEOUT,
            option("--no-wait", action="store_true", help="return once it is accepted"),
            JSON,
        ),
    ),
    Command(
        "host resume",
        "let workspaces be placed on a host again",
        "host resume HOST [options]",
        "draining:resume",
        """\
Ends the drain of HOST. Moves that are under way go on; what has left stays where it is.""",
        (("playground host resume n1", ""),),
        (DONE, NO),
        (_HOST, JSON),
    ),
    Command(
        "host install-hooks",
        "have this host's libvirt ask before a machine of ours is moved here by other tools",
        "host install-hooks [options]",
        "hooks:install",
        """\
Puts a small script into libvirt's folder of hooks, on the host itself and as root. With it, `virsh migrate` and `virsh
start` of our machines, whoever calls them, have addresses, rules and names in place before the machine's first packet.
Scripts of others stay. libvirtd looks for hooks when it starts: restart it once; machines run on meanwhile.""",
        (
            ("playground host install-hooks", "on a host with one agent"),
            ("playground --site campus host install-hooks --name n1", "of the agent n1 of that site"),
            ("playground host install-hooks --remove", ""),
        ),
        (
            (0, "it is there (or, with --remove, gone)"),
            (1, "it can't be; stderr says why and what to do"),
        ),
        (
            option("--name", metavar="HOST", help="whose agent is asked (default: the one that has run here)"),
            option("--dir", metavar="DIR", complete="file", help="libvirt's folder of hooks (/etc/libvirt/hooks)"),
            option("--remove", action="store_true", help="take it away"),
            JSON,
        ),
    ),
)
