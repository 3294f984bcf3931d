"""The table of the commands below `port`. Data only."""

from __future__ import annotations

from playground.cli.command import DONE, JSON, NO, TIMEOUT, Command, option

_PORT = option("port", metavar="PORT", complete="port", help="its device, pg…, as `ports --json` says it, or its id")
_HOST = option("host", metavar="HOST", complete="host", help="the host of the binding")
_GENERATION = option(
    "--generation", metavar="G", type=int, help="the binding that is meant (default: the one on HOST that counts now)"
)
_LATE = (3, "not so within --timeout; stderr names what is missing")

PORT_COMMANDS = (
    Command(
        "port bindings",
        "where a port is bound, and where it will be",
        "port bindings PORT [options]",
        "bindings:show",
        "A line for each host: state and generation of the port's binding there, and what it waits for.",
        (("playground port bindings pg5f2a90c1d3e7", ""),),
        (DONE, NO),
        (_PORT, JSON),
    ),
    Command(
        "port bind",
        "prepare an external workspace's port on another host",
        "port bind PORT HOST [options]",
        "bindings:bind",
        """\
HOST makes the port's other end: a tap or veth of the port's name that is there, closed, with guard, rules, DHCP and
names in place. Traffic stays where it is, until `port activate`. Prints the generation that the binding has.""",
        (("playground port bind pg5f2a90c1d3e7 n2", "then move the machine, then `port activate`"),),
        (DONE, NO, _LATE),
        (_PORT, _HOST, TIMEOUT, JSON),
    ),
    Command(
        "port activate",
        "say that a port is where it was prepared",
        "port activate PORT HOST [options]",
        "bindings:activate",
        "Traffic goes to HOST from now on, and what still comes to the host before it is sent on.",
        (("playground port activate pg5f2a90c1d3e7 n2 --generation 1041", ""),),
        (DONE, NO, _LATE),
        (_PORT, _HOST, _GENERATION, TIMEOUT, JSON),
    ),
    Command(
        "port abort",
        "take the preparation of a port back",
        "port abort PORT HOST [options]",
        "bindings:abort",
        "The port stays where it is. Refused once the binding is active.",
        (("playground port abort pg5f2a90c1d3e7 n2", ""),),
        (DONE, NO),
        (_PORT, _HOST, _GENERATION, JSON),
    ),
)
