"""What the tests of training share."""

import shutil
from contextlib import contextmanager

import pytest


@pytest.fixture
def meanwhile(monkeypatch):
    """meanwhile(module, ended): another process ends the run (as `ended`) just before `module` locks it."""

    def prepare(module, ended):
        lock = module.lock_directory

        @contextmanager
        def late(folder):
            shutil.copytree(ended, folder, dirs_exist_ok=True)
            with lock(folder):
                yield

        monkeypatch.setattr(module, "lock_directory", late)

    return prepare
