import os
import subprocess
import sys

import pytest

from hwdiff.utils.memory import keep_freed_memory

# 120 MB are made and left again and again: pages that the system has to give.
FAULTS = """
import resource, sys
if sys.argv[1] == "kept":
    from hwdiff.utils.memory import keep_freed_memory
    keep_freed_memory()
for _ in range(20):
    [b"x" * 3 * 2**20 for _ in range(40)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(how):
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, env=others, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_that_arrays_leave_is_used_again():
    assert faults("plainly") > 4 * faults("kept")


def test_what_the_environment_says_stays(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "5")
    keep_freed_memory()
    assert os.environ["MALLOC_MMAP_THRESHOLD_"] == "5"
    assert os.environ["MALLOC_TOP_PAD_"] == str(16 * 2**20)
