"""The table of the commands below `site`. Data only."""

from __future__ import annotations

from playground.cli.command import DONE, JSON, TIMEOUT, Command, option

_FILE = option("file", metavar="FILE", complete="file", help="the site's file; - is standard input")
_REFUSED = (1, "a file is refused, with every problem and its place, or no controller answers; nothing changed")

SITE_COMMANDS = (
    Command(
        "site plan",
        "say what `site apply` would change",
        "site plan FILE [options]",
        "tiers:plan",
        """\
Lists the site's policies that would be created, changed and removed, the connections that this opens and cuts in each
playground, and, on stderr, the lines of their `tests:` that would fail. Changes nothing.""",
        (("playground site plan campus.yaml", ""),),
        ((0, "the file is good, with or without changes"), _REFUSED),
        (_FILE, JSON),
    ),
    Command(
        "site apply",
        "put a site's policies in force, on all its hosts",
        "site apply FILE [options]",
        "tiers:apply",
        """\
Makes the policies of FILE those of the site: they outrank every playground's, in tiers before and after them. Says what
that changes, as `site plan` does, waits until every host enforces it, and has the hosts read their rules back. Only
the policies count: hosts, domain and resolvers are read when the controller starts. A controller that is started again
goes on with these policies, unless its own --site-file says others than at its last start.""",
        (
            ("playground site apply campus.yaml", ""),
            ("playground --site campus site apply campus.yaml --json | jq '.changes'", ""),
        ),
        (DONE, _REFUSED, (3, "accepted, and not in force everywhere within --timeout; stderr names the hosts")),
        (
            _FILE,
            TIMEOUT,
            option("--no-wait", action="store_true", help="return once it is accepted"),
            JSON,
        ),
    ),
    Command(
        "site show",
        "show the site's policies that are in force",
        "site show [options]",
        "tiers:show",
        "A line each, in the order in which they count: tier, priority, what it says, and where it was written.",
        (
            ("playground site show", ""),
            ("playground site show --text > campus.yaml", "the file that was accepted last"),
        ),
        (DONE, (1, "no controller answers")),
        (option("--text", action="store_true", help="print the accepted file instead"), JSON),
    ),
)
