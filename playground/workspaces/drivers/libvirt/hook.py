"""libvirt's hook for machines of ours: asks this host's agent before one is started here or comes here. A script of its
own, standard library only; `playground host install-hooks` copies it. https://libvirt.org/hooks.html

libvirt calls it as `qemu NAME OPERATION SUB-OPERATION EXTRA`, with the domain's XML on its standard input, and waits;
what fails here, libvirt refuses with what was said on standard error. Two operations ask: `migrate`, before a machine
comes here by a migration, and `prepare`, before its processes are made here. At all others, and of machines that are
not ours, nothing happens: what runs where, events and libvirt's own state say.

Without an agent a machine of ours is refused, after WITHOUT_S: nobody would make its taps, guard them, or know of it.
"""

import sys

SOCKET = "/run/playground/hook.sock"
"""Replaced by the place of this host's agent when it is installed."""

MARK = b"urn:playground:workspace"
"""In the XML of machines of ours."""

ASKING = ("migrate", "prepare")

WITHOUT_S = 5.0
"""How long an agent that is not there is waited for: one that is started again is back by then."""

ANSWER_S = 30.0
"""How long its answer is waited for; it takes care to answer long before."""

LARGEST = 1 << 20
"""Bytes of an order and of an answer."""


def main(argv: list[str], xml: bytes) -> tuple[str, str]:
    """Why it is refused, empty where it is not; and the domain's XML where it is to be another one here."""
    name, operation = [*argv, "", ""][:2]
    if operation not in ASKING or MARK not in xml:
        return "", ""
    import json

    try:
        answer = json.loads(_asked(json.dumps({"operation": operation, "xml": xml.decode()}).encode()))
        return str(answer["refused"]), str(answer["xml"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = f"no agent of the playground answers on this host ({error})"
        return f"{cause}, and without it {name} would have no network", ""


def _asked(order: bytes) -> bytes:
    """What the agent answers. Raises OSError."""
    import socket
    import time

    until = time.monotonic() + WITHOUT_S
    while True:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(ANSWER_S)
            try:
                channel.connect(SOCKET)
                channel.sendall(order)
                channel.shutdown(socket.SHUT_WR)
                if answer := channel.makefile("rb").read(LARGEST):
                    return answer
            except TimeoutError:
                raise
            except OSError:
                if time.monotonic() >= until:
                    raise
            if time.monotonic() >= until:
                raise OSError("it went away")
        time.sleep(0.1)


if __name__ == "__main__":
    refused, changed = main(sys.argv[1:], sys.stdin.buffer.read())
    if refused:
        sys.exit(refused)  # says it on standard error, and exits with 1
    sys.stdout.write(changed)
