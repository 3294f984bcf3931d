"""The table of the commands below `policy`. Data only."""

from __future__ import annotations

from playground.cli.command import DONE, JSON, NO, Command, option

_SOURCE = "a playground's file, kubernetes:PATH (a file or folder of manifests), or - for standard input"
_SITE_FILE = option("--site-file", metavar="F", complete="file", help="the site's file, with its tiers")
_NAME = option("name", metavar="NAME", nargs="?", complete="playground", help="only this playground")
_LOOK = (DONE, (1, "no controller answers, or there is no such playground"))
_UNREADABLE = (1, "a file is refused, with every problem and its place")

POLICY_COMMANDS = (
    Command(
        "policy check",
        "check policies: errors, what is probably not meant, and the files' tests",
        "policy check FILE… [options]",
        "policy:check",
        """\
Reads files, and prints a line for each thing found, for editors and CI: `file:line:column: error: message [code]`,
or `warning` for what is enforced as written but probably not meant. Runs the `tests:` of the files. Several files are
playgrounds side by side, under one site.""",
        (
            ("playground policy check lab.yaml", ""),
            ("playground policy check red.yaml blue.yaml --site-file campus.yaml", "with the tiers of a site"),
            ("playground policy check lab.yaml --json | jq '.findings'", ""),
        ),
        ((0, "no errors (there may be warnings), and all tests hold"), (1, "errors, or tests that fail")),
        (
            option("files", metavar="FILE", nargs="*", complete="file", help="playgrounds' files"),
            _SITE_FILE,
            JSON,
        ),
    ),
    Command(
        "policy connections",
        "list who may talk to whom, on which ports",
        "policy connections FILE [options]",
        "policy:connections",
        """\
A line for every ordered pair of different ends that policies and networks let talk: workspaces, `@world`, or ranges of
addresses where a policy tells parts of the world apart. Ends to list are a workspace, a group, a selector or `@world`.
`--from kubernetes` says instead that FILE is Kubernetes manifests (as `kubernetes:PATH` does); `--source` then takes
the end.""",
        (
            ("playground policy connections lab.yaml", ""),
            ("playground policy connections lab.yaml --from worker --to @world", "what of the world the workers reach"),
            ("playground policy connections lab.yaml --port tcp/22 --json", "who reaches whom by ssh"),
            ("playground policy connections --from kubernetes manifests/", "of Kubernetes manifests"),
        ),
        ((0, "done"), _UNREADABLE),
        (
            option("source_file", metavar="FILE", complete="file", help=_SOURCE),
            option("--from", metavar="X", help="list only from this end; or the word kubernetes, the format of FILE"),
            option("--source", metavar="X", help="list only from this end, whatever its name"),
            option("--to", metavar="X", help="list only to this end"),
            option("--port", metavar="P", help="list only what of these ports is allowed: tcp/22, udp/5000-5100, icmp"),
            _SITE_FILE,
            JSON,
            option("--csv", action="store_true", help="from,to,protocol,first,last; a line a range of ports"),
            option("--dot", action="store_true", help="a graph for Graphviz"),
        ),
    ),
    Command(
        "policy explain",
        "say why a connection is allowed or denied",
        "policy explain FILE FROM TO PORT [options]",
        "policy:explain",
        """\
Walks from one end to the other: the way between them, the tiers of the source's egress and of the destination's
ingress, down to the line that decides. An end is a workspace, an address, @world, @services, @host or
@gateway/NAME.""",
        (
            ("playground policy explain lab.yaml worker-0 head tcp/22", ""),
            ("playground policy explain lab.yaml mirror 192.0.2.7 tcp/443", "an address of the world"),
        ),
        ((0, "explained, allowed or denied"), (1, "a file is refused, or there is no such end")),
        (
            option("file", metavar="FILE", complete="file", help=_SOURCE),
            option("source", metavar="FROM", help="who begins the connection"),
            option("destination", metavar="TO", help="to whom"),
            option("port", metavar="PORT", help="tcp/22, udp/5000-5100, icmp/echo…"),
            _SITE_FILE,
            JSON,
        ),
    ),
    Command(
        "policy diff",
        "list the connections that a change opens and cuts",
        "policy diff A B [options]",
        "policy:diff",
        """\
Compares what two files mean, not their texts. `+` is what B lets talk and A does not, `-` the other way.""",
        (
            ("playground policy diff lab.yaml new.yaml", ""),
            ("git show HEAD:lab.yaml | playground policy diff - lab.yaml", "what the edit means"),
            ("playground policy diff kubernetes:old/ kubernetes:new/", "of Kubernetes manifests"),
        ),
        ((0, "compared, with or without differences"), _UNREADABLE),
        (
            option("before", metavar="A", complete="file", help=_SOURCE),
            option("after", metavar="B", complete="file", help=_SOURCE),
            _SITE_FILE,
            JSON,
        ),
    ),
    Command(
        "policy log",
        "show the verdicts that policies have logged",
        "policy log [NAME] [options]",
        "policy_live:log",
        """\
Policies with `mode: log` and staged ones log: when, from whom to whom, on which port, what was decided, and which rule
of which policy on which host decided it. Each host keeps its last 2000; of a flood a part is logged. Names are those of
now.""",
        (
            ("playground policy log atlas", "what hosts have kept"),
            ("playground policy log --follow --denied", "until Ctrl-C"),
            ("playground policy log atlas --from worker-0 --json", "for programs; with --follow, a line each"),
        ),
        _LOOK,
        (
            _NAME,
            option("--follow", action="store_true", help="go on with those to come"),
            option("--from", dest="source", metavar="X", help="only from this workspace or address"),
            option("--to", metavar="X", help="only to this workspace or address"),
            option("--denied", action="store_true", help="only what was, or would be, denied"),
            option("--allowed", action="store_true", help="only what was, or would be, allowed"),
            JSON,
        ),
    ),
    Command(
        "policy counters",
        "show what each rule has decided, in packets and bytes",
        "policy counters [NAME] [options]",
        "policy_live:counters",
        """\
Summed over the hosts, since each has put the rule in force. A verdict is counted where a connection begins, or is
judged anew after a change; what follows in it is not.""",
        (
            ("playground policy counters atlas", ""),
            ("playground policy counters atlas --over 10", "what is decided in ten seconds from now, and how often"),
            ("playground policy counters --json", "of all playgrounds"),
        ),
        (DONE, (1, "no controller answers, there is no such playground, or a host could not be asked")),
        (_NAME, option("--over", metavar="S", type=float, help="count only for so many seconds from now"), JSON),
    ),
    Command(
        "policy verify",
        "compare what the kernels hold with what they should",
        "policy verify [NAME] [options]",
        "policy_live:verify",
        """\
Each host reads the rules, sets and counters of its kernel back, object by object, and compares them with what its
policies mean. Tells also what their agents have put back in the last ten minutes. `up` ends with this, too.""",
        (("playground policy verify", "every host"), ("playground policy verify atlas", "the hosts of one playground")),
        ((0, "all is as it should be"), (1, "something differs, or a host could not be read (each is named)")),
        (_NAME, JSON),
    ),
    Command(
        "policy promote",
        "enforce a staged policy, in place of what it replaces",
        "policy promote FILE POLICY [options]",
        "policy_promote:promote",
        """\
Says what the staged policy would have allowed and denied on the site's hosts, and which connections it opens and cuts;
then edits FILE (or the file that it includes): the policy is not staged any more, and stands in the place and under the
name of the one that it `replaces`. Comments and order stay. FILE may be a site's. The file's tests have to hold.""",
        (
            ("playground policy promote lab.yaml head-ssh --dry-run", "see first"),
            ("playground policy promote lab.yaml head-ssh", "then: playground up lab.yaml"),
        ),
        ((0, "written, or with --dry-run shown"), (1, "refused, nothing was written; stderr says why and what to do")),
        (
            option("file", metavar="FILE", complete="file", help="the playground's file, or the site's"),
            option("name", metavar="POLICY", help="the staged policy"),
            option("--dry-run", action="store_true", help="show what would be written, and write nothing"),
            _SITE_FILE,
            JSON,
        ),
    ),
    Command(
        "policy import",
        "write a playground's file from Kubernetes manifests",
        "policy import --from kubernetes PATH -o FILE [options]",
        "policy_kubernetes:import_",
        """\
Workloads become workspaces, and their policies ours, with the same connections. What can't be said is refused by name.
Admin and baseline policies belong into a site's file, which is written beside FILE as NAME.site.yaml.""",
        (("playground policy import --from kubernetes manifests/ -o lab.yaml", ""),),
        ((0, "written"), NO),
        (
            option("--from", metavar="FORMAT", choices=("kubernetes",), required=True, help="kubernetes"),
            option("path", metavar="PATH", complete="file", help="a file or folder of manifests"),
            option("--output", "-o", metavar="FILE", complete="file", required=True, help="where to; - is stdout"),
            option("--name", metavar="NAME", help="of the playground (default: after FILE)"),
        ),
    ),
    Command(
        "policy export",
        "write policies as Kubernetes manifests",
        "policy export --to kubernetes FILE [options]",
        "policy_kubernetes:export",
        """\
Prints NetworkPolicy and ClusterNetworkPolicy documents. What Kubernetes can't say (staging, logging, ICMP by itself…)
is refused by name.""",
        (("playground policy export --to kubernetes lab.yaml > policies.yaml", ""),),
        ((0, "done"), NO),
        (
            option("--to", metavar="FORMAT", choices=("kubernetes",), required=True, help="kubernetes"),
            option("file", metavar="FILE", complete="file", help="the playground's file; - is standard input"),
            option("--with-pods", action="store_true", help="namespaces and a pod for each workspace too"),
            _SITE_FILE,
        ),
    ),
)
