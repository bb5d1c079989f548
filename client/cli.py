"""The `dream` command.

Exit codes: 0 done, 1 refused or failed, 2 cancelled or wrong usage, 3 no service, 130 left with Ctrl-C.
"""

import sys

import typer

from client import plugins
from client.commands import datasets, doctor, facts, jobs, keys, operations, results, steering, webhooks
from client.commands.options import HERE
from client.console import report
from client.errors import ClientError

app = typer.Typer(
    help="Distil a dataset into a few synthetic images per class.",
    epilog="DREAM_URL and DREAM_API_KEY name the service to talk to, and the key it knows you by.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module in (jobs, steering, results, facts, datasets, doctor, keys, webhooks, operations):
    app.add_typer(_module.app)

_here = typer.Typer()
for _command in plugins.commands():
    _lenient = not _command.loaded
    _context = {"ignore_unknown_options": _lenient, "allow_extra_args": _lenient}
    _here.command(_command.name, rich_help_panel=HERE, context_settings=_context)(_command.function)
app.add_typer(_here)


def main() -> None:
    try:
        app()
    except ClientError as error:
        sys.exit(report(error, as_json="--json" in sys.argv))


if __name__ == "__main__":
    main()
