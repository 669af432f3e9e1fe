"""What every test runs under: one thread per process, no network, seeded examples."""

import gc
import os
import signal
from pathlib import Path

# Read by the libraries when they are first imported, so set before any test module loads.
# One thread: two workers on two cores must not fight, and sums keep one order.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# What the machine or the CI adds must not change what a test sees: credentials, and the
# variables that make rich and typer colour or wrap their output.
for _variable in ("HF_TOKEN", "HF_ENDPOINT", "HF_HOME", "PYTHONHASHSEED"):
    os.environ.pop(_variable, None)
for _variable in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "LINES"):
    os.environ.pop(_variable, None)

# A shell that runs this in the background has SIGINT ignored, here and in every child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import HealthCheck, settings

from tests import containers

pytest_plugins = ("tests.browser",)

# No deadline and no "too slow": both measure the machine, not the code. CI repeats itself.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


# Files and folders that take longest, longest first: a file that begins last would leave the
# other worker idle (see --no-loadscope-reorder). Within each the order stays random.
LONG = (
    "integration/test_suite_laws.py",
    "sandboxes/test_docker.py",
    "sandboxes/test_docker_lower.py",
    "sandboxes/test_process_lower.py",
    "sandboxes/test_process.py",
    "integration",
    "sandboxes",
    "property",
    "unit/treegrpo/test_trainer.py",
    "unit/treegrpo/test_attention.py",
    "unit/test_house.py",
    "unit/benchmarks",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first."""
    items.sort(key=lambda item: _place(item.path.relative_to(Path(__file__).parent)))


def _place(path: Path) -> int:
    places = (place for place, long in enumerate(LONG) if path.is_relative_to(long))
    return next(places, len(LONG))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep what is imported and collected by now out of every later search for garbage.

    That is torch and some thousand tests: without this, each gc.collect() takes 0.6 s.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, with the reason in the totals."""
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("needs a CUDA device")
    wanted = item.get_closest_marker("docker") and not containers.IS_REQUIRED
    if wanted and (reason := containers.missing()):
        pytest.skip(reason)


def _has_gpu() -> bool:
    # Asked only for marked tests: importing torch takes seconds.
    import torch

    return torch.cuda.is_available()
