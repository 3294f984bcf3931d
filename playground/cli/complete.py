"""`completion`: scripts for shells, made from the table of commands, and the names they ask for. Never complains."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from playground.cli.command import Command, Option
from playground.cli.commands import COMMANDS, FAMILIES, GLOBALS
from playground.cli.failure import DONE, REFUSED, Failure
from playground.client import Client, Refused, Unreachable

QUICK_S = 0.5
"""A person is waiting with a finger on the Tab key."""

KINDS = ("playground", "workspace", "host", "port")


def completion(args: argparse.Namespace) -> int:
    scripts = {"bash": bash, "zsh": zsh, "fish": fish}
    print(scripts[args.shell]())
    return DONE


def names(before: list[str], after: list[str]) -> int:
    """`playground [--site NAME] __names KIND`: the names that the controller knows, a line each."""
    from playground.cli import parser, site

    if len(after) != 1 or after[0] not in KINDS:
        return REFUSED
    try:
        client = site.client_of(parser.parse(before), timeout=QUICK_S)
        print("\n".join(_names(client, after[0])))
    except (Unreachable, Refused, Failure, parser.Stop):
        return REFUSED
    return DONE


def _names(client: Client, kind: str) -> Iterable[str]:
    if kind == "playground":
        return sorted(client.get("site")["playgrounds"])
    if kind == "host":
        return sorted(host["name"] for host in client.get("hosts"))
    if kind == "port":
        return sorted(port["device"] for port in client.get("ports"))
    owners: dict[str, set[str]] = {}
    for port in client.get("ports"):
        owners.setdefault(port["workspace"], set()).add(port["playground"])
    return sorted(
        name if len(owning) == 1 else f"{playground}/{name}" for name, owning in owners.items() for playground in owning
    )


def bash() -> str:
    """Sourced by `eval "$(playground completion bash)"`."""
    cases = []
    for command in COMMANDS.values():
        cases.append(
            f"    '{command.name}')\n"
            f"      options='{_words(_flags(command))}'\n"
            f"      case $place in\n{_bash_places(command)}      esac ;;"
        )
    for first, words in FAMILIES.items():
        cases.append(f"    {first}) kinds='={_words(words)}' ;;")
    valued = "|".join(name for option in _unique(_with_values()) for name in option.names)
    values = "\n".join(
        f"    {'|'.join(option.names)}) {_bash_offer(option)} ; return ;;" for option in _unique(_with_values())
    )
    return f"""\
_playground() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  local command='' place=0 at word options='{_words(_globals())}'
  local -a site=()
  COMPREPLY=()
  for ((at = 1; at < COMP_CWORD; at++)); do
    word=${{COMP_WORDS[at]}}
    case $word in
      --) COMPREPLY=($(compgen -c -- "$current")) ; return ;;
      --site|--server|--token-file|--ca) site+=("$word" "${{COMP_WORDS[at+1]}}") ; ((at++)) ;;
      {valued}) ((at++)) ;;
      -*) ;;
      *) case $command in
           ''|{"|".join(FAMILIES)}) command=${{command:+$command }}$word ;;
           *) ((place++)) ;;
         esac ;;
    esac
  done
  case $previous in
{values}
  esac
  local kinds=''
  if [[ -z $command ]]; then
    options='{_words([*_globals(), "--version", "--help"])}' kinds='={_words(_first_words())}'
  else
    case $command in
{chr(10).join(cases)}
    esac
  fi
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
  else
    _playground_offer "$kinds"
  fi
}}
_playground_offer() {{
  case $1 in
    =*) COMPREPLY=($(compgen -W "${{1#=}}" -- "$current")) ;;
    file) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$current")) ;;
    ?*) COMPREPLY=($(compgen -W "$(playground "${{site[@]}}" __names "$1" 2>/dev/null)" -- "$current")) ;;
  esac
}}
complete -F _playground playground"""


def _bash_places(command: Command) -> str:
    places = [option for option in command.options if not option.names[0].startswith("-")]
    return "".join(f"        {at}) kinds='{_offer(option)}' ;;\n" for at, option in enumerate(places))


def _bash_offer(option: Option) -> str:
    return f"_playground_offer '{_offer(option)}'"


def zsh() -> str:
    """Sourced by `eval "$(playground completion zsh)"`, after `compinit`: bash's script through zsh's own bridge."""
    return f"autoload -Uz bashcompinit && bashcompinit\n{bash()}"


def fish() -> str:
    """Sourced by `playground completion fish | source`."""
    lines = ["complete -c playground -f"]
    for option in GLOBALS:
        lines.append(_fish_option("", option))
    for first, words in FAMILIES.items():
        lines.append(f"complete -c playground -n __fish_use_subcommand -a {first}")
        within = f"-n '__fish_seen_subcommand_from {first}; and not __fish_seen_subcommand_from {_words(words)}' "
        lines += [
            f"complete -c playground {within}-a {word} -d {_fish_quote(COMMANDS[f'{first} {word}'].summary)}"
            for word in words
        ]
    for command in COMMANDS.values():
        first, _, second = command.name.partition(" ")
        within = f"-n '__fish_seen_subcommand_from {first}' "
        if second:
            within = f"-n '__fish_seen_subcommand_from {first}; and __fish_seen_subcommand_from {second}' "
        else:
            lines.append(
                f"complete -c playground -n __fish_use_subcommand -a {first} -d {_fish_quote(command.summary)}"
            )
        for option in command.options:
            if option.names[0].startswith("-"):
                lines.append(_fish_option(within, option))
            elif offer := _fish_offer(option):
                lines.append(f"complete -c playground {within}{offer}")
    return "\n".join(lines)


def _fish_option(within: str, option: Option) -> str:
    name = option.names[0].removeprefix("--")
    value = f" -r {_fish_offer(option)}".rstrip() if "metavar" in option.arguments else ""
    return f"complete -c playground {within}-l {name}{value} -d {_fish_quote(option.help)}"


def _fish_offer(option: Option) -> str:
    if option.complete == "file":
        return "-F"
    if option.complete:
        return f"-a '(playground __names {option.complete} 2>/dev/null)'"
    if choices := option.arguments.get("choices"):
        return f"-a {_fish_quote(_words(choices))}"
    return ""


def _fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _offer(option: Option) -> str:
    """What `_playground_offer` takes: `=WORD WORD…`, a kind of name, or nothing."""
    choices = option.arguments.get("choices")
    return f"={_words(choices)}" if choices else option.complete


def _flags(command: Command) -> list[str]:
    own = [name for option in command.options for name in option.names if name.startswith("-")]
    return [*own, *_globals(), "--help"]


def _globals() -> list[str]:
    return [name for option in GLOBALS for name in option.names]


def _with_values() -> list[Option]:
    every = [*GLOBALS, *(option for command in COMMANDS.values() for option in command.options)]
    return [option for option in every if option.names[0].startswith("-") and "metavar" in option.arguments]


def _first_words() -> list[str]:
    return list(dict.fromkeys(name.partition(" ")[0] for name in COMMANDS))


def _unique(options: list[Option]) -> list[Option]:
    return list({option.names: option for option in options}.values())


def _words(words: Iterable[str]) -> str:
    return " ".join(words)
