"""`boxpromptiml completion`: commands and options for the Tab key of a shell."""

import contextlib
import io
import re
import sys

from boxpromptiml import cli

_COMMAND = re.compile(r"^  ([a-z][a-z-]*) +\S", re.MULTILINE)
_OPTION = re.compile(r"--[a-z][\w.-]*")
# What `complete` of bash and, with bashcompinit, of zsh understands. Every other word is a file.
_SCRIPT = """\
# Completion of boxpromptiml; write it anew after an update: boxpromptiml completion
if [ -n "${{ZSH_VERSION-}}" ]; then
  autoload -Uz +X compinit bashcompinit && compinit -u && bashcompinit
fi
_boxpromptiml() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  case "$COMP_CWORD ${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" in
    "1 "*) words="{commands}" ;;
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _boxpromptiml boxpromptiml
"""


def completion() -> None:
    """Print a script that completes commands and options in bash and zsh.

    For bash: `boxpromptiml completion > ~/.local/share/bash-completion/completions/boxpromptiml`.
    For zsh: `boxpromptiml completion > ~/.boxpromptiml.zsh`, and `source ~/.boxpromptiml.zsh` in
    .zshrc. The options are read from the help of every command, which takes some seconds.
    """
    commands, jobs = _COMMAND.findall(_help()), _COMMAND.findall(_help("data"))
    cases = [f'    "2 data "*) words="{" ".join(jobs)}" ;;']
    cases += [_case(f'*" data {job}"', "data", job) for job in jobs]
    cases += [_case(f'*" {command} "*', command) for command in commands if command != "data"]
    sys.stdout.write(_SCRIPT.format(commands=" ".join(commands), cases="\n".join(cases)))


def _case(pattern: str, *command: str) -> str:
    """The line for the options of one command."""
    options = sorted(set(_OPTION.findall(_help(*command))))
    return f'    {pattern}) words="{" ".join(options)}" ;;'


def _help(*command: str) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        cli.main([*command, "--help"])
    return text.getvalue()
