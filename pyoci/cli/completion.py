"""``pyoci completion``: a script that completes verbs, options, their choices, and the ids of containers.

All three shells get the same description, from the parsers themselves: for each verb its options, and what may stand after them.
"""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Examples, and where it goes:\n  bash: pyoci completion bash > ~/.local/share/bash-completion/completions/pyoci\n"
        '  zsh:  pyoci completion zsh > "${fpath[1]}/_pyoci"\n  fish: pyoci completion fish > ~/.config/fish/completions/pyoci.fish'
    )
    parser.add_argument("shell", choices=SHELLS, help="which shell")


RUNTIMES = ("crun", "runc")
SUGGESTED = {"--runtime": RUNTIMES, "--network": ("private", "host"), "--signal": ("TERM", "KILL", "HUP", "INT", "QUIT", "USR1", "USR2")}
"""Values that are not all there may be."""


class Described:
    """A verb: ``options`` as (names, help, whether a value follows, its choices, whether there are
    others); ``choices``: those of its words; ``has_ids``: they are ids."""

    __slots__ = ("choices", "has_ids", "name", "options", "summary")

    def __init__(self, name: str) -> None:
        from pyoci.cli import VERBS, parser_of

        self.name: str = name
        self.summary: str = VERBS[name]
        self.options: list[tuple[list[str], str, bool, list[str], bool]] = []
        self.has_ids: bool = False
        self.choices: list[str] = []
        for action in parser_of(name)._actions:
            suggested = next((SUGGESTED[name] for name in action.option_strings if name in SUGGESTED), ())
            choices = [str(choice) for choice in action.choices or suggested]
            if action.option_strings:
                self.options.append(
                    (list(action.option_strings), plain(action.help or ""), action.nargs != 0, choices, bool(suggested) and not action.choices)
                )
            elif action.metavar == "ID":
                self.has_ids = True
            else:
                self.choices += RUNTIMES if action.metavar == "RUNTIME" else choices


def plain(text: str) -> str:
    """Of a help text, what may stand between quotes in each shell."""
    return "".join(c for c in text if c.isalnum() or c in " ,.;-/()|=")


def main(options: argparse.Namespace) -> int:
    from pyoci.cli import VERBS

    verbs = [Described(name) for name in VERBS]
    print({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](verbs), end="")
    return 0


def bash(verbs: list[Described]) -> str:
    cases = []
    for verb in verbs:
        names = " ".join(name for option in verb.options for name in option[0])
        words = " ".join(verb.choices)
        valued = "|".join(name for option in verb.options if option[2] and not option[3] for name in option[0])
        lines = [f"    {verb.name})", f'        options="{names}"', f'        words="{words}"']
        if verb.has_ids:
            lines.append('        words="$(pyoci list -q "${state[@]}" 2>/dev/null)"')
        chosen = [
            f'            {"|".join(option[0])}) COMPREPLY=($(compgen {"-f " if option[4] else ""}-W "{" ".join(option[3])}" -- "$word")); return ;;'
            for option in verb.options
            if option[3]
        ]
        if valued:
            chosen.append(f'            {valued}) COMPREPLY=($(compgen -f -- "$word")); return ;;')
        if chosen:
            lines += ["        case $before in", *chosen, "        esac"]
        cases.append("\n".join([*lines, "        ;;"]))
    return _BASH.replace("VERBS", " ".join(verb.name for verb in verbs)).replace("CASES", "\n".join(cases))


_BASH = """\
# bash completion for pyoci; made by: pyoci completion bash
_pyoci() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb= options= words= i
    local -a state=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ -z $verb && ${COMP_WORDS[i]} != -* ]] && verb=${COMP_WORDS[i]}
        [[ ${COMP_WORDS[i]} == --state-dir ]] && state=(--state-dir "${COMP_WORDS[i+1]}")
    done
    case $verb in
    "")
        options="--help --version --debug"
        words="VERBS"
        ;;
CASES
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    else
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    fi
}
complete -o default -F _pyoci pyoci
"""


def zsh(verbs: list[Described]) -> str:
    cases = []
    for verb in verbs:
        specs = []
        for names, help, takes, choices, is_open in verb.options:
            among = f"{{compadd {' '.join(choices)}; _files}}" if is_open else f"({' '.join(choices)})"
            value = f":value:{among}" if choices else ":value:_files" if takes else ""
            specs += [f"'*{name}[{help}]{value}'" for name in names]
        rest = "'*:container:_pyoci_ids'" if verb.has_ids else f"'*:word:({' '.join(verb.choices)})'" if verb.choices else "'*:argument:_files'"
        cases.append(f"        {verb.name}) _arguments {' '.join([*specs, rest])} ;;")
    described = "\n".join(f"        '{verb.name}:{plain(verb.summary)}'" for verb in verbs)
    return _ZSH.replace("VERBS", described).replace("CASES", "\n".join(cases))


_ZSH = """\
#compdef pyoci
# zsh completion for pyoci; made by: pyoci completion zsh
_pyoci_ids() {
    local -a ids state
    local i=${words[(i)--state-dir]}
    (( i < $#words )) && state=(--state-dir "${words[i+1]}")
    ids=(${(f)"$(pyoci list -q $state 2>/dev/null)"})
    compadd -a ids
}
_pyoci() {
    local -a verbs
    verbs=(
VERBS
    )
    if (( CURRENT == 2 )); then
        _describe verb verbs
        return
    fi
    local verb=${words[2]}
    shift words
    (( CURRENT-- ))
    case $verb in
CASES
    esac
}
if [ "$funcstack[1]" = _pyoci ]; then
    _pyoci "$@"
else
    compdef _pyoci pyoci
fi
"""


def fish(verbs: list[Described]) -> str:
    lines = [
        "# fish completion for pyoci; made by: pyoci completion fish",
        "function __pyoci_ids",
        "    set -l words (commandline -opc)",
        "    set -l at (contains -i -- --state-dir $words)",
        '    if test -n "$at"',
        "        pyoci list -q --state-dir $words[(math $at + 1)] 2>/dev/null",
        "    else",
        "        pyoci list -q 2>/dev/null",
        "    end",
        "end",
        "complete -c pyoci -f",
        "complete -c pyoci -n __fish_use_subcommand -l version -d 'the version'",
        "complete -c pyoci -n __fish_use_subcommand -l debug -d 'log what is decided'",
    ]
    for verb in verbs:
        lines.append(f"complete -c pyoci -n __fish_use_subcommand -a {verb.name} -d '{plain(verb.summary)}'")
        seen = f"'__fish_seen_subcommand_from {verb.name}'"
        for names, help, takes, choices, is_open in verb.options:
            flags = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in names)
            value = f" {'-r -F' if is_open else '-x'} -a '{' '.join(choices)}'" if choices else " -r -F" if takes else ""
            lines.append(f"complete -c pyoci -n {seen} {flags}{value} -d '{help}'")
        if verb.has_ids:
            lines.append(f"complete -c pyoci -n {seen} -a '(__pyoci_ids)'")
        elif verb.choices:
            lines.append(f"complete -c pyoci -n {seen} -a '{' '.join(verb.choices)}'")
    return "\n".join(lines) + "\n"
