import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from hwdiff.utils import environment


def test_the_environment_is_what_this_machine_says():
    found = environment.environment("cpu")
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == version("torch")
    assert found["cores"] == os.cpu_count()
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == "cpu"
    assert found["processor"]


def test_what_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("no-such-package",))
    assert environment.environment("cpu")["packages"] == {"no-such-package": None}


def test_the_commit_is_that_of_the_packages_repository(monkeypatch, tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        # Of its own, whatever repository or configuration the tests run in.
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        own["GIT_CONFIG_GLOBAL"] = os.devnull
        return subprocess.run(command, check=True, capture_output=True, text=True, env=own).stdout.strip()

    (tmp_path / "hwdiff" / "utils").mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "hwdiff" / "utils" / "environment.py"))
    assert environment.environment("cpu")["code"] is None
    git("init")
    Path(tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert environment.environment("cpu")["code"] == {"commit": head, "changed": False}
    Path(tmp_path / "file").write_text("two")
    assert environment.environment("cpu")["code"] == {"commit": head, "changed": True}
