"""The table of commands: what each is called, takes, says of itself and returns, and where its code is. Data only."""

from __future__ import annotations

from collections.abc import Mapping

from playground.cli.command import DONE, JSON, NO, TIMEOUT, Command, more_than_nothing, option
from playground.cli.host_commands import HOST_COMMANDS
from playground.cli.lifecycle_commands import LIFECYCLE_COMMANDS
from playground.cli.policy_commands import POLICY_COMMANDS
from playground.cli.port_commands import PORT_COMMANDS
from playground.cli.site_commands import SITE_COMMANDS

PLAYGROUND = option("name", metavar="NAME", nargs="?", complete="playground", help="only this playground")

GLOBALS = (
    option("--site", metavar="NAME", help="the site that is meant (PLAYGROUND_SITE; default local)"),
    option("--server", metavar="URL", help="a controller elsewhere: https://HOST:PORT, unix:PATH (PLAYGROUND_SERVER)"),
    option("--token-file", metavar="FILE", complete="file", help="holds its token (or PLAYGROUND_TOKEN)"),
    option("--ca", metavar="FILE", complete="file", help="who signed its certificate, PEM (PLAYGROUND_CA)"),
    option("--debug", action="store_true", help="show the traceback of an unexpected error"),
)

_LATE = (3, "accepted, and not so within --timeout; stderr names what is missing")
_LOOK = (DONE, (1, "no controller answers, or there is no such playground"))

_ALL = (
    Command(
        "demo",
        "bring an example up on emulated hosts, move a workspace under traffic, take it down",
        "demo [options]",
        "demo:demo",
        """\
Makes a site of its own with three emulated hosts, brings examples/atlas.yaml up on them, shows who
sits where, tries every pair live, moves a worker to another host while a UDP stream and a TCP transfer
run to it, and takes all down. Each line that it prints was measured. Ctrl-C at any moment leaves nothing.""",
        (
            ("playground demo", "watch it"),
            ("playground demo --keep", "leave it up to look around; prints the commands to go on with"),
        ),
        (
            DONE,
            (1, "a check failed, or this machine can't (`playground doctor` says why)"),
            (3, "the playground was not up, or not gone, in time; stderr names what is missing"),
            (130, "ended by Ctrl-C; nothing is left"),
        ),
        (option("--keep", action="store_true", help="leave the site up at the end"),),
    ),
    Command(
        "up",
        "make a playground what its file says, and wait until it is so",
        "up FILE [options]",
        "change:up",
        """\
Reads and checks FILE, tells the controller, and waits until every workspace runs, has its addresses and
can be reached; then has the hosts read their kernels' rules back. A second run changes nothing and says so; after an
edit only what differs is changed.
With --emulate N the site is N emulated hosts on this machine, made if they are not there yet; with --site-file it
has the policies of that file first, as by `site apply` (its hosts are not used).""",
        (
            ("playground up examples/atlas.yaml --emulate 3", "on three emulated hosts of this machine"),
            ("playground up lab.yaml --emulate 3 --site-file campus.yaml", "under the policies of a site"),
            ("playground up lab.yaml", "on the hosts of the site's controller"),
            ("playground --site campus up lab.yaml --no-wait", "say it, and don't wait"),
        ),
        (
            DONE,
            (1, "refused, nothing changed: a bad file, no hosts, no controller; or up, but a kernel holds other rules"),
            _LATE,
        ),
        (
            option("file", metavar="FILE", complete="file", help="the playground's file; - is standard input"),
            option("--emulate", metavar="N", type=int, help="run the site on N emulated hosts of this machine"),
            option("--site-file", metavar="F", complete="file", help="with --emulate: whose policies the site has"),
            TIMEOUT,
            option("--no-wait", action="store_true", help="return once it is accepted"),
            JSON,
        ),
    ),
    Command(
        "plan",
        "say what `up` would change",
        "plan FILE [options]",
        "change:plan",
        """\
Checks FILE and lists what would be created, changed and removed, and which connections are opened and cut,
against the site's controller, under the site's policies; without one, against an empty site. Changes nothing.""",
        (
            ("playground plan lab.yaml", "objects, a line each"),
            ("playground plan lab.yaml --json | jq '.changes | length'", "how many"),
        ),
        (
            (0, "the file is good, with or without changes"),
            (1, "the file is refused, with every problem and its place, or one of its tests fails"),
        ),
        (
            option("file", metavar="FILE", complete="file", help="the playground's file; - is standard input"),
            option("--site-file", metavar="F", complete="file", help="without a controller: the site's policies"),
            JSON,
        ),
    ),
    Command(
        "down",
        "remove a playground, or all of them, without a trace",
        "down (NAME | --all) [options]",
        "change:down",
        """\
Removes the playground's workspaces, networks and addresses, and waits until no host holds anything of it.
--all removes every playground and ends an emulated site with all its hosts, also when its controller is dead.""",
        (
            ("playground down atlas", "one playground; the hosts stay"),
            ("playground down --all", "everything of the site"),
        ),
        (
            DONE,
            (1, "no such playground, or no controller"),
            (3, "not gone within --timeout; stderr says what is left"),
        ),
        (
            option("name", metavar="NAME", nargs="?", complete="playground", help="the playground"),
            option("--all", action="store_true", help="every playground, and the emulated site itself"),
            TIMEOUT,
        ),
    ),
    Command(
        "status",
        "what should be, what is, and why where they differ",
        "status [NAME] [options]",
        "status:status",
        """\
For each playground: desired (what the file says), programmed (what the hosts hold), probed (what the last
`probe` found, and when), and one sentence of cause where they differ; then hosts, networks and workspaces.""",
        (("playground status", "the whole site"), ("playground status atlas --json", "one playground, for programs")),
        _LOOK,
        (PLAYGROUND, JSON),
    ),
    Command(
        "hosts",
        "the hosts of the site; a token for a new one",
        "hosts [token NAME] [options]",
        "show:hosts",
        """\
Lists hosts with their state, underlay address and number of ports. `hosts token NAME` makes the token that
the agent of host NAME dials in with; it is shown once.""",
        (
            ("playground hosts", "name, state, underlay, ports"),
            ("playground hosts token n4 > n4.token", "then: playground agent … on n4"),
        ),
        (DONE, NO),
        (
            option("action", metavar="token", nargs="?", choices=("token",), help="make a token"),
            option("host", metavar="NAME", nargs="?", complete="host", help="the host that it is for"),
            JSON,
        ),
    ),
    Command(
        "ports",
        "the workspaces' ports: addresses, MAC, host, state",
        "ports [NAME] [options]",
        "show:ports",
        "A line for each NIC of each workspace.",
        (
            ("playground ports", ""),
            ("playground ports atlas --json | jq -r '.[] | .workspace + \" \" + .addresses[0]'", ""),
        ),
        _LOOK,
        (PLAYGROUND, JSON),
    ),
    Command(
        "leases",
        "which addresses clients have taken, since when and until when",
        "leases [NAME] [options]",
        "clients:leases",
        """\
bound: the client acknowledged the address; offered: it has not asked for it yet. Since when it has it without
a break, when the lease ends, what its client says of itself, and when that was heard last are asked of the
hosts, and left empty where one does not answer.""",
        (("playground leases atlas", ""),),
        _LOOK,
        (PLAYGROUND, JSON),
    ),
    Command(
        "why",
        "why a workspace has no address or no names",
        "why (WORKSPACE | ADDRESS) [options]",
        "clients:why",
        """\
Says for each port what hinders it, from the most telling: not placed, not programmed, no request seen, another
MAC, requests that can't be read, refusals with their reason; then the last messages of its client and what came
of each. It asks the port's host, so what it says is so now.""",
        (("playground why worker-0", ""), ("playground why 10.20.0.101", "whoever has that address")),
        _LOOK,
        (
            option("of", metavar="WORKSPACE", complete="workspace", help="NAME or PLAYGROUND/NAME, or an address"),
            JSON,
        ),
    ),
    Command(
        "capture",
        "show or keep what passes at a workspace's port",
        "capture WORKSPACE [FILTER] [options]",
        "clients:capture",
        """\
Prints each frame as tcpdump does, or with -w writes a pcap file, until Ctrl-C. FILTER is tcpdump's (pcap-filter);
it, and printing, need tcpdump on the workspace's host.""",
        (
            ("playground capture worker-0 arp", ""),
            ("playground capture worker-0 -w worker.pcap", "all frames, for Wireshark"),
            ("playground capture worker-0 -w - | wireshark -k -i -", ""),
        ),
        (DONE, NO),
        (
            option("workspace", metavar="WORKSPACE", complete="workspace", help="NAME or PLAYGROUND/NAME"),
            option("filter", metavar="FILTER", nargs="?", help="which frames, in quotes"),
            option("-w", "--write", metavar="FILE", complete="file", help="write a pcap there; - is stdout"),
            option("--network", metavar="NETWORK", help="its port there (default: its first NIC)"),
        ),
    ),
    Command(
        "events",
        "what happened lately, and what happens",
        "events [--follow] [options]",
        "show:events",
        "What the controller remembers; --follow goes on until Ctrl-C, and with --json prints a JSON object a line.",
        (("playground events", ""), ("playground events --follow", "until Ctrl-C")),
        (DONE, (1, "no controller answers"), (130, "ended by Ctrl-C")),
        (option("--follow", action="store_true", help="go on as things happen"), JSON),
    ),
    Command(
        "exec",
        "run a command inside a workspace or on a host",
        "exec (WORKSPACE | --host HOST) -- CMD…",
        "execute:execute",
        """\
Runs CMD with this terminal (or these pipes, byte for byte) and returns its exit code. A workspace is NAME,
or PLAYGROUND/NAME where NAME alone is ambiguous.""",
        (
            ("playground exec head -- ip -br addr", ""),
            ("playground exec atlas/worker-0 -- bash", "a shell, when this is a terminal"),
            ("tar c data | playground exec head -- tar x -C /tmp", "pipes work"),
            ("playground exec --host n1 -- ip -br link", "on a host"),
        ),
        (
            (0, "CMD's own exit code, whatever it is; 128 + N when signal N ended it"),
            (1, "also: no such workspace or host, or it could not be started"),
            (127, "also: there is no such command"),
        ),
        (
            option("workspace", metavar="WORKSPACE", nargs="?", complete="workspace", help="NAME or PLAYGROUND/NAME"),
            option("--host", metavar="HOST", complete="host", help="on this host instead"),
        ),
        takes_rest=True,
    ),
    *LIFECYCLE_COMMANDS,
    Command(
        "migrate",
        "move a workspace to another host, and measure the gap",
        "migrate WORKSPACE (HOST | --abort) [options]",
        "lifecycle:migrate",
        """\
Moves a running workspace with its addresses, names and connections, and waits until the move is settled.
A stream of small packets to it measures what was lost, what came twice, and the longest silence.
What would hinder the move is found out before anything changes; --dry-run says it, and moves nothing.""",
        (
            ("playground migrate worker-1 n3", ""),
            ("playground migrate worker-1 n3 --dry-run", "what speaks for and against it"),
            ("playground migrate db n2 --max-gap 200 --timeout 120", "rather not at all than with a longer silence"),
            ("playground migrate worker-1 --abort", "call a running move off, while it can be"),
        ),
        (
            DONE,
            (1, "refused, or the move was aborted"),
            (3, "the controller does not say how it ended"),
            (4, "it has moved, and --max-gap was not kept"),
        ),
        (
            option("workspace", metavar="WORKSPACE", complete="workspace", help="NAME or PLAYGROUND/NAME"),
            option("host", metavar="HOST", nargs="?", complete="host", help="where to"),
            option("--abort", action="store_true", help="call the workspace's running move off"),
            option("--dry-run", action="store_true", help="say what speaks for and against the move, and move nothing"),
            option("--no-measure", action="store_true", help="send no packets of our own"),
            option(
                "--max-gap",
                metavar="MS",
                type=more_than_nothing,
                default=0.0,
                help="the longest silence that is allowed",
            ),
            option(
                "--timeout",
                metavar="S",
                type=more_than_nothing,
                default=0.0,
                help="call it off after S seconds (default 60; 600 for a virtual machine)",
            ),
            option("--bandwidth", metavar="MiB/s", type=int, default=0, help="what copying may take of the network"),
            option(
                "--auto-converge", action="store_true", help="slow a machine down that writes faster than is copied"
            ),
            option("--post-copy", action="store_true", help="let it go on there before all of its memory is there"),
            option("--copy-storage", action="store_true", help="take the disks along that its host has made"),
            option("--plot", metavar="FILE", complete="file", help="draw the timeline: .png, .svg or .pdf"),
            JSON,
        ),
    ),
    Command(
        "probe",
        "try the live network, all pairs, against what should be",
        "probe NAME [options]",
        "lifecycle:probe",
        """\
Sends real packets from every workspace to every other, in every network and address family, and compares with what
networks and policies mean: pings, and where somebody polices, knocks at TCP and UDP ports: each end of a range that a
policy names for the two, the port beside it, and one elsewhere. A knock has passed when the other workspace saw it come
in; it takes no listener. With more than 20000 knocks, those pairs are left out that policies can't tell from others. A
workspace whose host's agent is away is waited for, 10 s at most; after that its pairs count as not observed.""",
        (("playground probe atlas", ""),),
        ((0, "everything is as it should be"), (1, "something differs, or was not observed (each is named)")),
        (option("name", metavar="NAME", complete="playground", help="the playground"), JSON),
    ),
    Command(
        "doctor",
        "what this machine can do, what is missing, how to get it",
        "doctor [--fix] [options]",
        "machine:doctor",
        "With --fix, and as root, gets what is missing: packages, kernel modules, the profile for user namespaces.",
        (("playground doctor", ""), ("sudo playground doctor --fix", "once a machine")),
        ((0, "all that is needed is there"), (1, "something is missing; its line says what and how to get it")),
        (option("--fix", action="store_true", help="get what is missing (as root)"), JSON),
    ),
    Command(
        "schema",
        "the JSON Schema of the files, for editors",
        "schema (playground | site)",
        "machine:schema",
        "Prints the schema that `up` checks files by.",
        (("playground schema playground > playground.schema.json", "for `# yaml-language-server: $schema=…`"),),
        (DONE,),
        (option("kind", metavar="KIND", choices=("playground", "site"), help="playground or site"),),
    ),
    Command(
        "store",
        "check a store's file",
        "store check PATH [options]",
        "machine:store",
        "Reads everything in a controller's store, and says what can't be read or doesn't fit. Changes nothing.",
        (("playground store check /var/lib/playground/campus/store.db", ""),),
        ((0, "the store is sound"), (1, "it is not, or it can't be read; stderr says where")),
        (
            option("action", metavar="check", choices=("check",), help="read and compare, change nothing"),
            option("path", metavar="PATH", complete="file", help="the store's file"),
            JSON,
        ),
    ),
    Command(
        "controller",
        "run the controller of a site (a daemon)",
        "controller [its own options]",
        "main:controller",
        "All options are the controller's own: `playground controller --help`.",
        (("playground controller --help", ""),),
        (DONE, NO),
    ),
    Command(
        "agent",
        "run the agent of a host (a daemon)",
        "agent [its own options]",
        "main:agent",
        "All options are the agent's own: `playground agent --help`.",
        (("playground agent --help", ""),),
        (DONE, NO),
    ),
    Command(
        "completion",
        "print a shell's completion script",
        "completion (bash | zsh | fish)",
        "complete:completion",
        "Completes commands and options, and asks the controller for the names of playgrounds, workspaces and hosts.",
        (
            ('eval "$(playground completion bash)"', "in ~/.bashrc"),
            ('eval "$(playground completion zsh)"', "in ~/.zshrc, after compinit"),
            ("playground completion fish | source", "in ~/.config/fish/config.fish"),
        ),
        (DONE,),
        (option("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish"),),
    ),
)

COMMANDS: Mapping[str, Command] = {
    command.name: command for command in (*_ALL, *HOST_COMMANDS, *PORT_COMMANDS, *POLICY_COMMANDS, *SITE_COMMANDS)
}

DAEMONS = frozenset({"controller", "agent"})
"""Commands whose options are parsed by their own programs."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "port": tuple(command.name.partition(" ")[2] for command in PORT_COMMANDS),
    "host": tuple(command.name.partition(" ")[2] for command in HOST_COMMANDS),
    "policy": tuple(command.name.partition(" ")[2] for command in POLICY_COMMANDS),
    "site": tuple(command.name.partition(" ")[2] for command in SITE_COMMANDS),
}
"""First words of commands of two words → their second words."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "start here": ("demo", "doctor"),
    "change": ("plan", "up", "down"),
    "look": ("status", "hosts", "ports", "leases", "why", "capture", "events", "probe"),
    "hosts": tuple(command.name for command in HOST_COMMANDS),
    "policies": tuple(command.name for command in (*POLICY_COMMANDS, *SITE_COMMANDS)),
    "workspaces": (
        "exec",
        *(command.name for command in LIFECYCLE_COMMANDS),
        "migrate",
        *(command.name for command in PORT_COMMANDS),
    ),
    "daemons": ("controller", "agent"),
    "tools": ("schema", "store", "completion"),
}
