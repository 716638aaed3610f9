"""What the tests of the deployment's scripts share: AWS, Neon's API, and a run of a script."""

import contextlib
import io
import json
import os
import pathlib
import runpy
import sys
import threading
import traceback
import unittest.mock
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto import mock_aws

ROOT = pathlib.Path(__file__).parents[3]
REGION = "eu-central-1"
# Items on a page. moto itself returns everything at once.
PAGE = 3
# What an operation lists, and the names of the page's token in its request and in its response.
PAGED = {
    "ListStackResources": ("StackResourceSummaries", "NextToken", "NextToken"),
    "ListVersionsByFunction": ("Versions", "Marker", "NextMarker"),
    "ListAliases": ("Aliases", "Marker", "NextMarker"),
}


def run(script, *arguments, **environment):
    """Runs a script of the project like a program. Returns its exit code, and all that it printed."""
    output, code = io.StringIO(), 0
    with (
        unittest.mock.patch.dict(os.environ, environment),
        unittest.mock.patch.object(sys, "argv", [script, *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            # As Python does: a text is printed, and the code is 1 then.
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code)
        except Exception:
            code = 1
            traceback.print_exc()
    return code, output.getvalue()


class Aws:
    """moto, whose lists come in pages, and whose answers a test can replace. Keeps the calls."""

    def __init__(self, test):
        self.calls = []
        self._replaced = []
        mocked = mock_aws()
        mocked.start()
        test.addCleanup(mocked.stop)
        original = BaseClient._make_api_call
        through = unittest.mock.patch.object(
            BaseClient, "_make_api_call", lambda client, operation, arguments: self._call(original, client, operation, arguments)
        )
        through.start()
        test.addCleanup(through.stop)

    def client(self, service):
        return boto3.client(service, region_name=REGION)

    def refuse(self, operation, **arguments):
        """Makes all calls of an operation fail that have these arguments."""
        error = {"Error": {"Code": "AccessDeniedException", "Message": "you may not"}}
        self._replaced.append((operation, arguments, ClientError(error, operation)))

    def replace(self, operation, answer):
        """Answers all calls of an operation with this."""
        self._replaced.append((operation, {}, answer))

    def allow_all(self):
        self._replaced.clear()

    def count(self, operation):
        return sum(name == operation for name, _ in self.calls)

    def _call(self, original, client, operation, arguments):
        self.calls.append((operation, arguments))
        for name, some, answer in self._replaced:
            if name == operation and some.items() <= arguments.items():
                if isinstance(answer, Exception):
                    raise answer
                return answer
        if operation not in PAGED:
            return original(client, operation, arguments)
        items, token, next_token = PAGED[operation]
        start = int(arguments.get(token, 0))
        answer = original(client, operation, {name: value for name, value in arguments.items() if name != token})
        everything = answer[items]
        answer[items] = everything[start : start + PAGE]
        if start + PAGE < len(everything):
            answer[next_token] = str(start + PAGE)
        return answer


class Neon:
    """Neon's API of one project, as its reference describes it. Keeps the calls. A branch is ready when it was asked for thrice."""

    KEY = "napi_0123456789abcdef"
    PASSWORD = "npg_ThePasswordOfTheOwner"
    PROJECT = "quiet-river-12345678"
    PARENT = "br-parent"

    def __init__(self, test):
        self.calls = []
        # Statuses, each for one call of a method and the last word of its path.
        self.errors = {}
        self.branches = {}
        self.ready_after = 3
        self.is_json = True
        self._made = 0
        neon = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                status, content = neon._answer(self)
                body = json.dumps(content).encode() if neon.is_json else b"<html>Bad Gateway</html>"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        test.addCleanup(self.stop)
        self.environment = {
            "NEON_API": f"http://127.0.0.1:{self._server.server_port}/api/v2",
            "NEON_API_KEY": self.KEY,
            "NEON_PROJECT_ID": self.PROJECT,
            "NEON_PARENT_BRANCH": self.PARENT,
        }

    def stop(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def names(self):
        return sorted(branch["name"] for branch in self.branches.values())

    def count(self, method, what):
        return sum(call == (method, what) for call in self.calls)

    def fail(self, method, what, *statuses):
        """Answers the next calls with these statuses."""
        self.errors[method, what] = list(statuses)

    def _answer(self, request):
        url = urllib.parse.urlsplit(request.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        body = json.loads(request.rfile.read(int(request.headers.get("Content-Length", 0))) or "null")
        start = f"/api/v2/projects/{self.PROJECT}/"
        if request.headers.get("Authorization") != f"Bearer {self.KEY}" or not url.path.startswith(start):
            return 401, {"code": "", "message": "authentication failed"}
        what, _, branch = url.path.removeprefix(start).partition("/")
        what = "branch" if branch else what
        self.calls.append((request.command, what))
        if self.errors.get((request.command, what)):
            # More than Neon would say.
            return self.errors[request.command, what].pop(0), {"code": "", "message": f"{self.KEY} {self._url('ep-x')}"}
        match request.command, what:
            case "GET", "branches":
                found = [it for it in reversed(self.branches.values()) if query.get("search", "") in it["name"]]
                return 200, {"branches": found[: int(query.get("limit", PAGE))]}
            case "POST", "branches" if body["branch"]["parent_id"] == self.PARENT and body["endpoints"] == [{"type": "read_write"}]:
                self._made += 1
                branch = {"id": f"br-{self._made}", "name": body["branch"]["name"], "current_state": "init", "asked": 0}
                self.branches[branch["id"]] = branch
                return 201, {"branch": branch}
            case "GET", "branch" if branch in self.branches:
                self.branches[branch]["asked"] += 1
                if self.branches[branch]["asked"] >= self.ready_after:
                    self.branches[branch]["current_state"] = "ready"
                return 200, {"branch": self.branches[branch]}
            case "DELETE", "branch" if branch in self.branches:
                return 200, {"branch": self.branches.pop(branch)}
            case "GET", "connection_uri":
                asked = {"branch_id": query["branch_id"], "database_name": "neondb", "role_name": "neondb_owner", "pooled": "false"}
                if query == asked and self.branches[query["branch_id"]]["current_state"] == "ready":
                    return 200, {"uri": self._url(query["branch_id"].replace("br", "ep"))}
        return 404, {"code": "", "message": "not found"}

    def _url(self, endpoint):
        host = f"{endpoint}.eu-central-1.aws.neon.tech"
        return f"postgresql://neondb_owner:{self.PASSWORD}@{host}/neondb?sslmode=require&channel_binding=require"
