import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from geograft.cli import app, main

COMMANDS = [
    "demo",
    "world",
    "photos",
    "fetch",
    "scenes",
    "pairs",
    "pairs plan",
    "pairs materialise",
    "pairs make",
    "pairs inspect",
    "pairs export",
    "train",
    "embed",
    "search",
    "classify",
    "segment",
    "evaluate",
    "info",
]
HEAVY = ("numpy", "torch", "pandas", "rasterio", "transformers", "pydantic")


def run(monkeypatch, *arguments: str) -> int:
    """The exit code of the command line, run here."""
    monkeypatch.setattr(sys, "argv", ["geograft", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command):
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert f"geograft {command}" in " ".join(shown.output.split())


def test_help_and_import_load_no_numerical_library():
    code = f"import sys, geograft, geograft.cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photos", "nowhere.csv", "out.parquet"], "nowhere.csv"),
        (["scenes", "nowhere", "out.parquet", "--sensor", "naip"], "nowhere"),
        (["scenes", ".", "out.parquet", "--sensor", "naip"], "holds no"),
        (["pairs", "plan", "no.parquet", "none.parquet", "out"], "none.parquet"),
        (["pairs", "make", "no.parquet", "none.parquet", "out"], "none.parquet"),
        (["pairs", "materialise", "nothing"], "nothing"),
        (["pairs", "inspect", "nothing"], "nothing"),
        (["pairs", "export", "nothing", "out"], "nothing"),
        (["fetch", "nothing.parquet", "out"], "nothing.parquet"),
        (["train", "nothing", "out"], "nothing"),
        (["search", "nothing.tif", "water"], "nothing.tif"),
        (["segment", "nothing.tif", "--classes", "water; trees", "-o", "map.tif"], "nothing.tif"),
        (["info", "nothing"], "nothing"),
        (["evaluate", "moon"], "moon"),
        (["world", "out", "--size", "3"], "256"),
        (["evaluate", "world-1", "--seeds", "abc"], "--seeds"),
        (["search", ".", "water", "-o", "hits.xyz"], ".geojson"),
        (["segment", ".", "--classes", "water; trees", "-o", "map.jpg"], ".tif"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(monkeypatch, tmp_path, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err
    assert shown.err.startswith("error: ")
    assert "Traceback" not in shown.err
    assert not shown.out
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_json_is_one_object_on_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["geograft", "info", "sensors", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert "naip" in json.loads(capsys.readouterr().out)


def test_version_is_the_package_s(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == "0.1.0"


def test_a_path_that_cannot_be_used_is_a_sentence_without_a_traceback(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "world", "file", "--size", "260", "--photos", "0") == 2
    assert capsys.readouterr().err.startswith("error: file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_mistake_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("geograft.cli.app", lambda: (_ for _ in ()).throw(OSError("no errno, no path")))
    with pytest.raises(OSError, match="no errno"):
        main()


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    monkeypatch.setattr("geograft.info.describe", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(monkeypatch, "info", "mini") == 130
    assert "run the same command again" in capsys.readouterr().err


def test_the_map_never_replaces_the_scene(monkeypatch, tmp_path, capsys):
    (tmp_path / "scene.tif").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "segment", "scene.tif", "--classes", "water; trees", "-o", "scene.tif") == 2
    assert "it is the input" in capsys.readouterr().err
    assert (tmp_path / "scene.tif").read_text() == "mine"


def test_patterns_in_examples_keep_their_stars():
    assert "regions/*/photos.parquet" in CliRunner().invoke(app, ["pairs", "make", "--help"]).output


def test_models_that_are_not_shipped_do_not_hide_the_others(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("geograft.models.checkpoints.resources.files", lambda _: tmp_path)
    assert run(monkeypatch, "info", "models") == 0
    assert capsys.readouterr().out.count("this installation lacks it") == 2


def test_a_folder_with_a_broken_manifest_is_named(monkeypatch, tmp_path, capsys):
    (tmp_path / "manifest.json").write_text("{")
    assert run(monkeypatch, "info", str(tmp_path)) == 2
    assert "is not a manifest" in capsys.readouterr().err
