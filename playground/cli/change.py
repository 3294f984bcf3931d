"""`plan`, `up`, `down`: reads a playground's file, has it admitted, and waits until the site is as the file says."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from playground.cli import policy_live, progress, render, site, sources
from playground.cli import tiers as site_policies
from playground.cli.edits import change_text, connections_text, foreseen_text
from playground.cli.failure import DONE, REFUSED, Failure, NotConverged, UsageFailure
from playground.client import Client, Refused, Unreachable, segment

if TYPE_CHECKING:
    from playground.spec import PlaygroundSpec, SiteSpec


def plan(args: argparse.Namespace) -> int:
    """What `up` would change: by the site's controller, or without one against an empty site."""
    spec = sources.playground(*sources.read(args.file))
    client = site.client_of(args)
    if site.is_remote(args) or site.answering(client) is not None:
        if args.site_file is not None:
            raise UsageFailure(
                "the site's controller has the site's policies; leave --site-file out "
                f"(`playground site plan {args.site_file}` says what others would change)"
            )
        answer = client.post("plan", _sent(spec), timeout=_reading_s(spec))
    else:
        answer = admit_alone(spec, sources.site(args.site_file))
        print("playground: no controller answers here; planned against an empty site", file=sys.stderr)
    if args.json:
        print(render.json_text(answer))
        return DONE
    ink = render.Ink.of(sys.stdout)
    print(change_text(answer["name"], answer["changes"], ink))
    for key, says in (("unplaced", "would wait"), ("overfull", "stays, though there is no room")):
        if foreseen := foreseen_text(answer.get(key) or [], says, ink):
            print(foreseen)
    if connections := connections_text(answer.get("connections"), ink):
        print(connections)
    return DONE


def up(args: argparse.Namespace) -> int:
    """Checked here before anything is made; then the controller's word counts, which knows the site's policies."""
    if args.emulate is not None and args.emulate < 1:
        raise UsageFailure("--emulate takes a number of hosts, 1 or more")
    if args.emulate is not None and site.is_remote(args):
        raise UsageFailure("--emulate makes hosts on this machine, --server names a controller elsewhere: use one")
    if args.emulate is None and args.site_file is not None:
        raise UsageFailure(f"--site-file is for --emulate; here write `playground site apply {args.site_file}` first")
    spec = sources.playground(*sources.read(args.file))
    name = spec.name
    tiers = sources.site(args.site_file)
    was_there = site.is_emulated(site.name_of(args))
    check_alone(spec, tiers, are_known=args.emulate is not None and not was_there)
    started = time.monotonic()
    client = _site_for(args, any(one.driver == "libvirt" for one in spec.workspaces.values()))
    ink = render.Ink.of(sys.stdout)
    ranks = None
    try:
        if tiers is not None:
            ranks = site_policies.put(client, tiers)
            if not args.json:
                print(site_policies.told(ranks, ink), flush=True)
        answer = client.put("playgrounds", _sent(spec), timeout=_reading_s(spec))
    except Refused:
        if args.emulate is not None and not was_there:
            site.end(site.name_of(args))  # made for a file that its controller refuses: nothing is to stay
        elif ranks is not None and ranks["changes"]:
            print(f"playground: the site has the policies of {args.site_file} now; {spec.file}:", file=sys.stderr)
        raise
    if not args.json:
        print(change_text(name, answer["changes"], ink), flush=True)
        if connections := connections_text(answer.get("connections"), ink):
            is_new = any(change["object"] == f"playground {name}" for change in answer["changes"])
            print(connections.partition("\n")[0] if is_new else connections, flush=True)
    state = None
    if not args.no_wait:
        try:
            state = await_converged(client, name, args.timeout, answer["change"])
        except KeyboardInterrupt:
            print(f"playground: {name} is accepted and goes on; see `playground status`", file=sys.stderr)
            raise
    seconds = time.monotonic() - started
    verified = policy_live.verified(client, name) if state is not None else None
    if args.json:
        told = {**answer, "converged": state is not None, "seconds": round(seconds, 3), "verified": verified}
        print(render.json_text(told if ranks is None else {**told, "site": ranks}))
    elif state is not None and answer["changes"]:
        rules = "" if verified is None else f", rules verified on {render.count(verified['hosts'], 'host')}"
        print(f"{name}: {ink.good('up')}, {counts(state)}{rules}, {seconds:.1f} s")
    if verified is None or not (verified["differences"] or verified["unobserved"]):
        return DONE
    print(f"playground: {policy_live.verified_text(verified)}", file=sys.stderr)
    return REFUSED if verified["differences"] else DONE


def down(args: argparse.Namespace) -> int:
    """One playground, or all of them and the emulated site itself."""
    if args.all == (args.name is not None):
        raise UsageFailure("name a playground, or --all, one of them: playground down NAME")
    if args.all:
        return _down_all(args)
    client = site.client_of(args)
    started = time.monotonic()
    remove(client, args.name)
    _await_removed(client, [args.name], args.timeout)
    print(f"{args.name}: down, {time.monotonic() - started:.1f} s")
    return DONE


def _await_removed(client: Client, names: list[str], timeout: float) -> None:
    try:
        await_removed(client, names, timeout)
    except KeyboardInterrupt:
        remains = f"{render.spelled(names, 'nothing')} is removed, and its hosts go on with it"
        print(f"playground: {remains}; see `playground status`", file=sys.stderr)
        raise


def _down_all(args: argparse.Namespace) -> int:
    """An emulated site ends whole, controller and hosts with all that they hold: no part of it needs to be alive."""
    started = time.monotonic()
    name = site.name_of(args)
    if not site.is_remote(args) and site.is_emulated(name):
        site.end(name)
        print(f"site {name}: down, {time.monotonic() - started:.1f} s")
        return DONE
    client = site.client_of(args)
    try:
        names = list(client.get("site")["playgrounds"])
    except Unreachable as error:
        if not site.is_remote(args) and error.is_absent():
            print(f"site {name}: nothing is up")
            return DONE
        raise
    for name in names:
        remove(client, name)
    _await_removed(client, names, args.timeout)
    print(f"{render.spelled(names, 'nothing')}: down, {time.monotonic() - started:.1f} s")
    return DONE


def admit_alone(spec: PlaygroundSpec, tiers: SiteSpec | None) -> dict[str, Any]:
    """What the file would make of an empty site with these tiers: `{name, changes, connections}`, its tests passed.
    Raises BadFile."""
    from playground.admit import Known, admit
    from playground.spec import SpecErrors, check_tests, connections_changed, scene

    sources.checked(scene(spec, site=tiers))
    try:
        check_tests(spec, tiers)
        steps = admit(spec, Known.empty(), "plan").steps
    except SpecErrors as error:
        raise sources.bad_file(error) from error
    changes = [{"action": step.action, "object": step.object, "detail": step.detail} for step in steps]
    return {"name": spec.name, "changes": changes, "connections": connections_changed(None, spec, tiers)}


def check_alone(spec: PlaygroundSpec, tiers: SiteSpec | None, *, are_known: bool) -> None:
    """Refuses what no site would take: what would be ignored, or can't be placed. are_known: no other policies of the
    site than tiers count, so that the file's own tests can be held. Raises BadFile."""
    from playground.admit import Known, admit
    from playground.spec import SpecErrors, check_enforced, check_tests, scene

    if are_known:
        sources.checked(scene(spec, site=tiers))
    try:
        check_enforced(spec)
        if are_known:
            check_tests(spec, tiers)
        admit(spec, Known.empty(), "plan")
    except SpecErrors as error:
        raise sources.bad_file(error) from error


def _sent(spec: PlaygroundSpec) -> dict[str, Any]:
    """A file as the API takes it, with those that it includes."""
    included = spec.connectivity.included
    return {"file": spec.file, "text": spec.text} | ({"included": included} if included else {})


def _reading_s(spec: PlaygroundSpec) -> float:
    """How long a controller may take over a file, in seconds: it reads that and the one before it, and compares."""
    included = (text for files in spec.connectivity.included.values() for _, text in files)
    return 30 + (len(spec.text) + sum(map(len, included))) / 20_000


def remove(client: Client, name: str) -> None:
    """Has a playground removed. Raises Failure, naming those that there are."""
    try:
        client.delete(f"playgrounds/{segment(name)}")
    except Refused as error:
        if error.status != 404:
            raise
        there = render.spelled(client.get("site")["playgrounds"])
        raise Failure(f"there is no playground {name} here; there is: {there}") from error


def await_converged(client: Client, name: str, timeout: float, change: str) -> progress.Progress:
    """Waits until a playground is as this change asked. Raises NotConverged with what is missing, and why, and Failure
    when another edit, or a removal, counts instead."""

    def is_over(state: progress.Progress) -> bool:
        return progress.is_converged(state) or state.get("change") != change

    try:
        state = progress.follow(client, name, is_over, timeout)
    except progress.TimedOut as late:
        raise NotConverged(_late(f"{name} is not up within {timeout:g} s", late.progress)) from None
    if state.get("change") == change:
        return state
    if state.get("change") is None:
        raise Failure(f"{name} was removed by a `down` before this edit ({change}) was up; `playground up` again")
    raise Failure(
        f"this edit of {name} ({change}) was replaced by another one, {_other(state)}, before it was up; "
        "`playground plan` shows how your file differs from it"
    )


def await_removed(client: Client, names: list[str], timeout: float) -> None:
    """Waits until nothing of the playgrounds is left on any live host. Raises NotConverged, and Failure when somebody
    brings one up again meanwhile."""

    def is_over(state: progress.Progress) -> bool:
        return progress.is_removed(state) or state.get("change") is not None

    deadline = time.monotonic() + timeout
    for name in names:
        try:
            state = progress.follow(client, name, is_over, max(deadline - time.monotonic(), 0.0))
        except progress.TimedOut as late:
            raise NotConverged(_late(f"{name} is not gone within {timeout:g} s", late.progress)) from None
        if state.get("change") is not None:
            raise Failure(f"{name} was removed, and is being brought up again by another edit, {_other(state)}")


def _other(state: progress.Progress) -> str:
    """Somebody else's edit: `grid.yaml (change 1f0c…)`."""
    return f"{render.word(state, 'file')} (change {render.word(state, 'change')})"


def counts(state: progress.Progress) -> str:
    """`6 workspaces, 7 ports`."""
    return f"{render.count(state['workspaces']['total'], 'workspace')}, {render.count(state['ports']['total'], 'port')}"


def _late(head: str, state: progress.Progress | None) -> str:
    missing = [render.printable(cause) for cause in progress.causes(state)]
    more = [f"and {len(missing) - 10} more"] if len(missing) > 10 else []
    return "\n".join(
        [f"{head}; it goes on, `playground status` shows how far it is", *(f"  {m}" for m in missing[:10] + more)]
    )


def _site_for(args: argparse.Namespace, hypervisors: bool) -> Client:
    """The client of a site that has a controller; `--emulate` makes it, or joins it."""
    if args.emulate is not None:
        line = progress.Line()
        line.show(f"site {site.name_of(args)}: starting {render.count(args.emulate, 'emulated host')}")
        try:
            site.emulate(site.name_of(args), args.emulate, hypervisors=hypervisors)
        finally:
            line.clear()
        return site.client_of(args)
    client = site.client_of(args)
    if site.answering(client) is None:
        raise Failure(
            f"no controller answers at {client.address}; `playground up {args.file} --emulate 3` makes hosts on "
            "this machine, or run `playground controller` and an agent a host (docs/hosts.md), then name it "
            "with --site or --server"
        )
    return client
