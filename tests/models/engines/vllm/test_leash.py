import subprocess
import sys

import psutil

from models.engines import vllm

FOLDER = vllm.__path__[0]

PARENT = """
import subprocess, sys, time
sys.path.insert(0, sys.argv[2])  # by its folder: the package would import vLLM
from leash import Leash
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
leash = Leash([child.pid])
if sys.argv[1] == "release":
    leash.release()
print(child.pid, flush=True)
time.sleep(3600)
"""


def orphan(how: str) -> psutil.Process:
    """A child whose parent, which held it on a leash, was killed."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PARENT, how, FOLDER], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    return child


def test_a_killed_service_leaves_no_engine_behind() -> None:
    """When the service is killed with -9, what it held on the leash must end as well."""
    orphan("hold").wait(timeout=30)


def test_a_released_process_lives_on() -> None:
    """After release the leash must not end anything: the process ids may belong to others by then."""
    child = orphan("release")
    assert child.is_running()
    child.kill()
