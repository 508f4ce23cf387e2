"""The command itself, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bulkformer_tl.cli._convert import convert
from bulkformer_tl.cli._diagnose import diagnose
from bulkformer_tl.cli._embed import embed
from bulkformer_tl.cli._graph import graph
from bulkformer_tl.cli._impute import impute
from bulkformer_tl.cli._models import models
from bulkformer_tl.cli._pretrain import pretrain
from bulkformer_tl.cli._session import INTERRUPTED
from bulkformer_tl.cli._vocabulary import vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODES = """\b
Exit codes:
  0    done
  1    a fault of this program, with a traceback
  2    wrong options, or the output exists already
  3    the data are not what the command needs
  4    a file or a model is not there
  5    a download failed, or a file is not the published one
  6    the system refused: no permission, no space
  130  interrupted; no output was written

\b
Completion of commands, options and model names; bash, zsh, fish:
  eval "$(_BULKFORMER_COMPLETE=bash_source bulkformer)"
  eval "$(_BULKFORMER_COMPLETE=zsh_source bulkformer)"
  _BULKFORMER_COMPLETE=fish_source bulkformer | source
"""


@click.group(epilog=_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="bulkformer-tl", prog_name="bulkformer", message="%(prog)s %(version)s")
def bulkformer() -> None:
    """Embed and impute bulk RNA-seq samples with BulkFormer.

    Reads tables of counts (csv, tsv, gz), featureCounts, STAR, salmon, RSEM, GCT, Xena, recount3, h5ad and zarr.
    Results go to files, what --json asks for to standard output, everything else to standard error.

    \b
    A cohort of raw counts, from question to result:
      bulkformer diagnose counts.csv
      bulkformer embed counts.csv --counts -o cohort.h5ad
      bulkformer impute counts.csv --counts --align -o complete.h5ad
    """


for command in (diagnose, convert, embed, impute, graph, vocabulary, pretrain, models):
    bulkformer.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    arguments
        Words after the command's name; ``None`` takes those of the process.

    Returns
    -------
    The exit code, see ``bulkformer --help``.
    """
    # so that a job scheduler's request to stop removes unfinished files like Ctrl-C does
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        code: Any = bulkformer.main(args=arguments, prog_name="bulkformer", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; no output was written", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read the output has left; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    finally:
        signal.signal(signal.SIGTERM, before)
    return code if isinstance(code, int) else 0


def _stop(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
