"""What a user sees before anything runs."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from importlib.metadata import entry_points, version

import click
import pytest

from bulkformer_tl.cli import bulkformer, main
from bulkformer_tl.cli._options import UNITS

LEAVES = [
    *(name for name, command in bulkformer.commands.items() if not isinstance(command, click.Group)),
    *(f"models {name}" for name in bulkformer.commands["models"].commands),
]


def test_commands():
    assert sorted(LEAVES) == [
        *("convert", "diagnose", "embed", "graph", "impute"),
        *("models convert", "models get", "models list", "models verify"),
        *("pretrain", "vocabulary"),
    ]


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, bulkformer_tl.cli as c, json\n"
        "code = c.main(['--help'])\n"
        "heavy = [m for m in ('torch', 'scanpy', 'anndata', 'pandas', 'numpy', 'sklearn') if m in sys.modules]\n"
        "print(json.dumps([code, heavy]))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]
    # processor time: the clock on the wall also counts what else the machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["models", "-h"]])
def test_help_ends_well(run, words):
    ended = run(*words)
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.startswith("Usage: bulkformer")


@pytest.mark.parametrize("leaf", LEAVES)
def test_each_help_has_examples_and_says_what_options_mean(run, leaf):
    ended = run(*leaf.split(), "--help")
    assert ended.code == 0
    assert f"  bulkformer {leaf} " in ended.out or f"  bulkformer {leaf}\n" in ended.out
    for option in ("--json", "--quiet", "--debug"):
        assert option in ended.out
    command = bulkformer
    for word in leaf.split():
        command = command.commands[word]
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


@pytest.mark.parametrize("leaf", LEAVES)
def test_examples_are_commands_that_parse(leaf):
    """Every option of an example exists; nothing of it runs."""
    command = bulkformer
    for word in leaf.split():
        command = command.commands[word]
    text = command.help.split("Examples:\n")[1].replace("\\\n", " ")
    known = {name for option in command.params for name in option.opts}
    for line in text.splitlines():
        words = line.split("|")[0].split(">")[0].split()
        used = {word for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known, line


def test_exit_codes_are_documented(run):
    text = run("--help").out
    for code in (0, 1, 2, 3, 4, 5, 6, 130):
        assert re.search(rf"^ +{code} +\w+", text, flags=re.MULTILINE)


def test_version(run):
    assert run("--version").out == f"bulkformer {version('bulkformer-tl')}\n"


def test_the_script_is_declared():
    (script,) = entry_points(group="console_scripts", name="bulkformer")
    assert script.load() is main


def test_units_are_those_of_the_library():
    from typing import get_args

    from bulkformer_tl.pp._convert import Unit

    assert set(UNITS) == {"counts", *get_args(Unit)}


def complete(words, **environment):
    shell = {"_BULKFORMER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
    if not words.endswith(" "):
        shell["COMP_CWORD"] = str(len(words.split()) - 1)
    done = subprocess.run(
        [sys.executable, "-m", "bulkformer_tl.cli"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **shell, **environment},
    )
    return [line.split(",")[1] for line in done.stdout.splitlines()]


def test_completion_of_commands_and_models():
    commands = ["convert", "diagnose", "embed", "graph", "impute", "models", "pretrain", "vocabulary"]
    assert complete("bulkformer ") == commands
    assert complete("bulkformer models get bulkformer-3") == ["bulkformer-37M"]


def test_completion_of_options_and_values():
    assert "--counts" in complete("bulkformer embed --")
    assert complete("bulkformer embed --identifiers s") == ["symbol"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell, run):
    """The documented lines print a script for the shell; bash's own is asked for its version on the way."""
    assert f"_BULKFORMER_COMPLETE={shell}_source bulkformer" in run("--help").out
    done = subprocess.run(
        [sys.executable, "-m", "bulkformer_tl.cli"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "_BULKFORMER_COMPLETE": f"{shell}_source"},
    )
    assert f"_BULKFORMER_COMPLETE={shell}_complete" in done.stdout
    assert "bulkformer" in done.stdout
