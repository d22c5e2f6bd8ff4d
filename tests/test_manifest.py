import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from hwdiff import manifest


def test_the_environment_is_what_this_machine_says():
    found = manifest.environment("cpu")
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == version("torch")
    assert found["cores"] == os.cpu_count()
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == "cpu"
    assert found["processor"]


def test_what_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(manifest, "PACKAGES", ("no-such-package",))
    assert manifest.environment("cpu")["packages"] == {"no-such-package": None}


def test_the_commit_is_that_of_the_packages_repository(monkeypatch, tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    (tmp_path / "hwdiff").mkdir()
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "hwdiff" / "manifest.py"))
    assert manifest.environment("cpu")["code"] is None
    git("init")
    Path(tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert manifest.environment("cpu")["code"] == {"commit": head, "changed": False}
    Path(tmp_path / "file").write_text("two")
    assert manifest.environment("cpu")["code"] == {"commit": head, "changed": True}
