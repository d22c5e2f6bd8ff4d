import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_conda_environment_is_pyprojects(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    extras = project["optional-dependencies"]
    assert pip == [*project["dependencies"], *extras["notebooks"], *extras["dev"], "--editable ."]
    [python] = [
        entry
        for entry in environment["dependencies"]
        if isinstance(entry, str) and entry.startswith("python")
    ]
    assert python == "python=3.12"
    assert project["requires-python"] == ">=3.11"


def test_every_dependency_has_a_bound_and_a_pin(project):
    pins = (ROOT / "requirements.txt").read_text()
    for requirement in [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]:
        name, bound = re.fullmatch(r"([a-z0-9-]+)>=([0-9.]+)", requirement).groups()
        pinned = re.findall(rf"^{name}==([0-9.]+)", pins, re.MULTILINE)
        assert pinned, f"{name} is not pinned"
        assert all(
            tuple(map(int, version.split("."))) >= tuple(map(int, bound.split("."))) for version in pinned
        )


def test_every_pin_has_its_hashes_and_names_no_host():
    pins = (ROOT / "requirements.txt").read_text()
    entries = re.split(r"\n(?=[a-z0-9-]+==)", pins)[1:]
    assert len(entries) > 100
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in pins


def test_scripts_run_and_say_what_they_do():
    usage = subprocess.run(
        ["bash", ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "./run_all.sh test" in usage
    below = [f"{ROOT.name}/run_all.sh", "--help"]
    told = subprocess.run(["bash", *below], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert told.stdout == usage
    wrong = subprocess.run(
        ["bash", ROOT / "run_all.sh", "dance"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 1
    assert "no such command as 'dance'" in wrong.stderr
    assert "./run_all.sh test" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("arguments", [["test", "--version"], ["--dry-run"]])
def test_an_active_environment_with_this_clone_is_used(arguments, tmp_path):
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ROOT / "run_all.sh", *arguments, *(["--out", tmp_path] if "test" not in arguments else [])],
        env={**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert f"== using the active environment {sys.prefix}" in done.stdout
    assert done.returncode == 0, done.stderr
