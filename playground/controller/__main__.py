"""`playground controller`: composes store, loops and API, and serves until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path

from playground import paths
from playground.store.api import StoreError

EXAMPLES = """\
examples (docs/hosts.md goes through all of it):
  playground controller --site lab --site-file site.yaml          commands on this machine only
  playground controller --site lab --site-file site.yaml --listen 198.51.100.1:7470 \\
    --admin-token-file admin.token --tls-cert tls.pem --tls-key tls.key
  playground --site lab hosts                                     who is there

exit codes:
  0   ended as asked, by SIGTERM or SIGINT
  1   it can't start; stderr says why
  2   usage"""


def parser() -> argparse.ArgumentParser:
    """The controller's own flags."""
    made = argparse.ArgumentParser(
        prog="playground controller",
        description="Serves the API, keeps the records, places workspaces, drives moves. One per store file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--site", default=os.environ.get("PLAYGROUND_SITE", "local"), help="the site's name")
    made.add_argument("--site-file", type=Path, help="YAML: domain, resolvers, hosts, policies (see docs/files.md)")
    made.add_argument(
        "--listen", metavar="HOST:PORT", help="also serve on TCP (agents and remote commands; needs tokens)"
    )
    made.add_argument("--socket", type=Path, help="the Unix socket for commands on this machine")
    made.add_argument(
        "--store", default=None, help="path of the SQLite store, or `memory` (default: in the state directory)"
    )
    made.add_argument(
        "--tokens", type=Path, help="JSON {host: sha256 hex of its token}, instead of tokens issued by command"
    )
    made.add_argument(
        "--admin-token-file", type=Path, help="secret for commands over TCP (without it, TCP is for agents only)"
    )
    made.add_argument("--tls-cert", type=Path, help="serve TCP with TLS: certificate chain (PEM)")
    made.add_argument("--tls-key", type=Path, help="its key (PEM)")
    made.add_argument(
        "--world",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="an address beyond gateways that answers pings, for `playground probe`; may be repeated",
    )
    made.add_argument("--log-level", default="INFO")
    return made


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; 1 when it can't start."""
    options = parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection each agent, command, and waiting question
    try:
        asyncio.run(_serve(options))
    except (OSError, ValueError, StoreError) as error:
        print(f"playground controller: {_said(error)}", file=sys.stderr)
        return 1
    return 0


def _said(error: Exception) -> str:
    """Why it can't start: a file that the system refuses by its name, all else in its own words."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


async def _serve(options: argparse.Namespace) -> None:
    gc.set_threshold(20_000, 20, 100)  # by default all that lives long is looked at again and again
    from playground.api.app import make_app
    from playground.api.serving import Serving, tcp_socket, unix_socket
    from playground.controller.controller import Controller
    from playground.controller.hosts import admit_hosts
    from playground.spec import SpecErrors, load_site
    from playground.store.api import Store
    from playground.store.memory import MemoryStore
    from playground.store.sqlite import SqliteStore

    try:
        if options.site_file is not None:
            site = load_site(options.site_file.read_bytes(), str(options.site_file))
        else:
            site = load_site(f"name: {options.site}\nhosts: {{}}\n", "no site file")
    except SpecErrors as error:
        raise ValueError(str(error)) from None
    tokens = json.loads(options.tokens.read_text()) if options.tokens else {}
    store: Store
    if options.store == "memory":
        store = MemoryStore()
    else:
        path = Path(options.store) if options.store else paths.state_dir(options.site) / "store.db"
        store = await asyncio.to_thread(SqliteStore.open, path)
    controller = Controller(store, site, tokens, options.world)
    await controller.world.load()
    await admit_hosts(store, controller.world, site, tokens)
    try:
        await controller.tiers.begin(site if options.site_file else None)
    except SpecErrors as error:
        raise ValueError(str(error)) from None
    await controller.world.load()
    admin_token = options.admin_token_file.read_text().strip() if options.admin_token_file else None
    if admin_token == "":
        raise ValueError(f"{options.admin_token_file} is empty; put a long random secret in it")
    app = make_app(controller, admin_token)

    path = options.socket or paths.controller_socket(options.site)
    serving = [Serving(app, unix_socket(path))]
    if options.listen:
        serving.append(Serving(app, tcp_socket(options.listen), options.tls_cert, options.tls_key))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(controller.run())
    recovering = asyncio.create_task(controller.changes.recover())
    await asyncio.wait([running, recovering], return_when=asyncio.FIRST_COMPLETED)
    recovering.cancel()  # done, unless the controller is
    tasks = [running, *(asyncio.create_task(s.run()) for s in serving)]
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for server in serving:
        server.end()
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.close()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    for task in done:
        if task is not stopping:
            task.result()


if __name__ == "__main__":
    sys.exit(main())
