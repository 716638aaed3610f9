"""Runs the SAM CLI as it is, except for a wait after each call of `sam local`.

    local.py SAM-ARGUMENT...

After each response, SAM waits for the emulator's report of the call, a second at most. It looks for the report at the
start of what it reads from the log. A function that writes a line just before is read together with the report, so that
nearly every call took the whole second. The log is complete without the wait.
"""

import threading

from samcli.cli.main import cli
from samcli.local.docker.container import Container


class NoWait(threading.Event):
    """An event that nobody waits for."""

    def wait(self, timeout=None):
        return True


assert callable(Container._create_threading_event), "another version of the SAM CLI waits in another way"
Container._create_threading_event = staticmethod(NoWait)
cli(prog_name="sam")
