"""Tests of .github/preview.py and of preview.yml, with moto and a stand-in for Neon's API. No test waits: time is a variable."""

import json
import os
import pathlib
import subprocess
import tempfile
import time
import tomllib
import unittest
import unittest.mock
import urllib.parse

import stand_ins
import yaml

NAMES = ["api", "database", "owner"]
FRONT_END = "https://app.example.com"
BOUNDARY = "arn:aws:iam::123456789012:policy/boundary-of-task-api-pr"


class Preview(unittest.TestCase):
    def setUp(self):
        self.aws = stand_ins.Aws(self)
        self.neon = stand_ins.Neon(self)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = pathlib.Path(folder.name, "preview.toml")
        self.slept = 0
        monotonic = time.monotonic
        for name, value in [("sleep", self.sleep), ("monotonic", lambda: monotonic() + self.slept)]:
            patch = unittest.mock.patch(f"time.{name}", value)
            patch.start()
            self.addCleanup(patch.stop)

    def sleep(self, seconds):
        self.slept += seconds

    def run_script(self, *arguments):
        """Runs the script, and fails if it prints or writes a secret. Returns its exit code and its output."""
        environment = {**self.neon.environment, "FRONT_END": FRONT_END, "BOUNDARY_ARN": BOUNDARY, "AWS_REGION": stand_ins.REGION}
        code, output = stand_ins.run(".github/preview.py", *arguments, **environment)
        public = output + (self.file.read_text() if self.file.exists() else "")
        secrets = [self.neon.KEY, self.neon.PASSWORD, "postgresql://", *self.passwords()]
        self.assertEqual([it for it in secrets if it in public], [], "is public")
        return code, output

    def up(self, number="7"):
        self.assertEqual(self.run_script("up", number, str(self.file)), (0, ""))

    def down(self, number="7"):
        self.assertEqual(self.run_script("down", number), (0, ""))

    def fails(self, arguments, pattern):
        """Runs the script, which must fail with one line like this."""
        code, output = self.run_script(*arguments)
        self.assertEqual(code, 1)
        self.assertRegex(output, f"^{pattern}\n$")

    def secrets(self, number="7"):
        """Returns the secrets' contents by name."""
        client, found = self.aws.client("secretsmanager"), {}
        for name in NAMES:
            try:
                text = client.get_secret_value(SecretId=f"task-api/preview-{number}/{name}")["SecretString"]
                found[name] = json.loads(text)
            except client.exceptions.ResourceNotFoundException:
                pass
        return found

    def passwords(self):
        """Returns the passwords and keys that the script has made up, in its last version of each secret."""
        client = self.aws.client("secretsmanager")
        for secret in client.list_secrets()["SecretList"]:
            for value in json.loads(client.get_secret_value(SecretId=secret["ARN"])["SecretString"]).values():
                yield urllib.parse.urlsplit(value).password or value

    def arns(self):
        return sorted(secret["ARN"] for secret in self.aws.client("secretsmanager").list_secrets()["SecretList"])

    def parameters(self):
        parameters = tomllib.loads(self.file.read_text())["preview"]["deploy"]["parameters"]
        return parameters["stack_name"], dict(it.replace('"', "").split("=", 1) for it in parameters["parameter_overrides"])

    def make_stack(self, number):
        """Makes a stack like the deployment's, and the log groups that outlive it."""
        stack = f"task-api-pr-{number}"
        topic = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
        self.aws.client("cloudformation").create_stack(StackName=stack, TemplateBody=topic)
        for group in [f"/aws/lambda/{stack}-list-tasks", f"/aws/lambda/{stack}-health", f"/aws/vendedlogs/{stack}-access"]:
            self.aws.client("logs").create_log_group(logGroupName=group)

    def left(self):
        """Returns the names of the stacks and log groups."""
        stacks = self.aws.client("cloudformation").describe_stacks()["Stacks"]
        groups = self.aws.client("logs").describe_log_groups()["logGroups"]
        return sorted([it["StackName"] for it in stacks] + [it["logGroupName"] for it in groups])

    def test_a_pull_request_gets_a_branch_three_secrets_and_settings(self):
        self.up()
        self.assertEqual(self.neon.names(), ["preview/pr-7"])
        secrets = self.secrets()
        url, owner_url = secrets["api"]["DATABASE_URL"], secrets["owner"]["DATABASE_URL_UNPOOLED"]
        pattern = r"^postgresql://tasks_api:[0-9a-f]{64}@ep-1-pooler\.eu-central-1\.aws\.neon\.tech/neondb\?sslmode=require$"
        self.assertRegex(url, pattern)
        self.assertEqual(urllib.parse.urlsplit(owner_url).hostname, "ep-1.eu-central-1.aws.neon.tech")
        self.assertEqual(urllib.parse.urlsplit(owner_url).password, self.neon.PASSWORD)
        self.assertRegex(secrets["api"]["BETTER_AUTH_SECRET"], "^[0-9a-f]{64}$")
        self.assertEqual([sorted(secrets[name]) for name in NAMES], [["BETTER_AUTH_SECRET", "DATABASE_URL"], ["DATABASE_URL"], ["DATABASE_URL_UNPOOLED"]])
        self.assertEqual(secrets["database"]["DATABASE_URL"], url)
        stack, parameters = self.parameters()
        arns = [parameters["ApiSecretArn"], parameters["DatabaseSecretArn"], parameters["OwnerSecretArn"]]
        self.assertEqual((stack, sorted(arns)), ("task-api-pr-7", self.arns()))
        self.assertEqual((parameters["BetterAuthUrl"], parameters["PermissionsBoundaryArn"]), (FRONT_END, BOUNDARY))

    def test_the_deploy_command_takes_the_settings(self):
        self.up()
        command = [os.environ["DEVTOOLS"], "deploy", "preview", "--config-file", str(self.file), "--dry-run"]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("# preview: stack task-api-pr-7 in eu-central-1\n", done.stdout)
        for name, value in self.parameters()[1].items():
            if name != "DeploymentId":
                self.assertIn(f'{name}="{value}"', done.stdout)

    def test_the_next_push_uses_the_same_branch_and_secrets(self):
        self.up()
        secrets, text = self.secrets(), self.file.read_text()
        self.up()
        self.assertEqual((self.neon.names(), self.neon.count("POST", "branches")), (["preview/pr-7"], 1))
        self.assertEqual((self.secrets(), self.file.read_text()), (secrets, text))

    def test_a_branch_with_part_of_another_ones_name_is_another_branch(self):
        # More than are on a page, and the newest come first.
        numbers = ["7", *(str(number) for number in range(70, 80))]
        for number in numbers:
            self.up(number)
        self.up("7")
        self.assertEqual(self.neon.names(), sorted(f"preview/pr-{number}" for number in numbers))
        self.down("7")
        self.assertEqual(self.neon.names(), sorted(f"preview/pr-{number}" for number in numbers[1:]))
        self.assertEqual(([*self.secrets("7")], [*self.secrets("70")]), ([], NAMES))

    def test_what_was_interrupted_is_finished_by_the_next_run(self):
        for refused in NAMES:
            with self.subTest(refused):
                self.aws.refuse("CreateSecret", Name=f"task-api/preview-7/{refused}")
                self.fails(["up", "7", str(self.file)], "AWS: .*AccessDeniedException.*CreateSecret.*you may not")
                self.aws.allow_all()
                self.up()
                secrets = self.secrets()
                self.assertEqual([*secrets], NAMES)
                self.assertEqual(secrets["api"]["DATABASE_URL"], secrets["database"]["DATABASE_URL"])
                self.down()
        self.up()

    def test_a_branch_that_was_removed_by_hand_is_replaced_and_so_are_the_urls(self):
        self.up()
        before, arns = self.secrets(), self.arns()
        self.neon.branches.clear()
        self.up()
        after = self.secrets()
        self.assertEqual((self.neon.names(), self.arns()), (["preview/pr-7"], arns))
        self.assertIn("@ep-2.", after["owner"]["DATABASE_URL_UNPOOLED"])
        self.assertIn("@ep-2-pooler.", after["api"]["DATABASE_URL"])
        self.assertEqual(after["api"]["DATABASE_URL"], after["database"]["DATABASE_URL"])
        self.assertNotEqual(after["api"]["DATABASE_URL"], before["api"]["DATABASE_URL"])

    def test_closing_removes_the_stack_its_logs_the_secrets_and_the_branch_and_nothing_else(self):
        for number in ["7", "70"]:
            self.up(number)
            self.make_stack(number)
        others = [it for it in self.left() if "-pr-70" in it]
        self.assertEqual(len(others), 4)
        self.down()
        self.assertEqual((self.left(), self.neon.names()), (others, ["preview/pr-70"]))
        self.assertEqual(([*self.secrets("7")], [*self.secrets("70")]), ([], NAMES))
        # Secrets that wait for their deletion keep their names.
        deletions = [arguments for operation, arguments in self.aws.calls if operation == "DeleteSecret"]
        self.assertTrue(deletions and all(it["ForceDeleteWithoutRecovery"] for it in deletions), deletions)

    def test_closing_twice_or_without_a_preview_is_no_error(self):
        self.down("8")
        self.up()
        self.make_stack("7")
        self.down()
        self.down()
        self.assertEqual((self.left(), self.neon.names(), self.arns()), ([], [], []))

    def test_a_stack_that_does_not_go_is_an_error_and_keeps_its_database(self):
        self.up()
        self.make_stack("7")
        stack = {"StackName": "task-api-pr-7", "StackStatus": "DELETE_FAILED", "CreationTime": "2026-11-30T00:00:00Z"}
        self.aws.replace("DescribeStacks", {"Stacks": [stack]})
        self.fails(["down", "7"], "AWS: Waiter StackDeleteComplete failed: .*DELETE_FAILED.*")
        self.aws.allow_all()
        self.assertEqual((self.neon.names(), [*self.secrets()]), (["preview/pr-7"], NAMES))
        self.down()
        self.assertEqual(self.neon.names(), [])

    def test_a_project_that_is_locked_by_another_branch_is_waited_for(self):
        self.neon.fail("POST", "branches", 423, 423)
        self.up()
        self.neon.fail("DELETE", "branch", 423)
        self.down()
        self.assertEqual((self.neon.names(), self.neon.count("POST", "branches"), self.neon.count("DELETE", "branch")), ([], 3, 2))
        self.slept = 0
        self.neon.fail("POST", "branches", *[423] * 1000)
        self.fails(["up", "7", str(self.file)], "Neon answered 423 to POST .*/branches")
        self.assertTrue(120 <= self.slept < 130, self.slept)

    def test_a_branch_that_is_never_ready_is_an_error(self):
        self.neon.ready_after = 1000
        self.fails(["up", "7", str(self.file)], "Neon's branch preview/pr-7 is not ready after 120 s")
        self.assertTrue(120 <= self.slept < 130, self.slept)
        self.assertEqual((self.arns(), self.file.exists()), ([], False))

    def test_each_error_of_neon_is_one_line_without_a_secret(self):
        address = f"{self.neon.environment['NEON_API']}/projects/{self.neon.PROJECT}"
        up, down = ["up", "7", str(self.file)], ["down", "7"]
        for status in [403, 404, 422, 500]:
            self.neon.branches.clear()
            for method, what, arguments, path in [
                ("GET", "branches", up, "/branches"),
                ("POST", "branches", up, "/branches"),
                ("GET", "branch", up, "/branches/br-[0-9]+"),
                ("GET", "connection_uri", up, "/connection_uri"),
                ("GET", "branches", down, "/branches"),
                ("DELETE", "branch", down, "/branches/br-[0-9]+"),
            ]:
                with self.subTest(status=status, method=method, what=what):
                    self.neon.fail(method, what, status)
                    self.fails(arguments, f"Neon answered {status} to {method} {address}{path}")
        self.neon.is_json = False
        self.fails(up, f"Neon's answer to GET {address}/branches is not JSON")
        self.neon.environment["NEON_API_KEY"] = "another-key"
        self.fails(up, f"Neon answered 401 to GET {address}/branches")
        self.neon.stop()
        self.fails(up, f"Neon cannot be reached for GET {address}/branches: .*refused.*")
        self.assertEqual((self.arns(), self.file.exists()), ([], False))

    def test_each_refusal_of_aws_is_one_line_without_a_secret(self):
        for operation in ["DescribeSecret", "CreateSecret"]:
            self.aws.refuse(operation)
            self.fails(["up", "7", str(self.file)], f"AWS: .*AccessDeniedException.*{operation}.*")
            self.aws.allow_all()
        self.assertEqual((self.arns(), self.file.exists()), ([], False))
        self.up()
        self.neon.branches.clear()
        self.aws.refuse("UpdateSecret")
        self.fails(["up", "7", str(self.file)], "AWS: .*AccessDeniedException.*UpdateSecret.*")
        self.make_stack("7")
        for operation in ["DeleteStack", "DescribeLogGroups", "DeleteLogGroup", "DeleteSecret"]:
            self.aws.refuse(operation)
            self.fails(["down", "7"], f"AWS: .*AccessDeniedException.*{operation}.*")
            self.aws.allow_all()

    def test_other_arguments_print_how_it_is_used(self):
        for arguments in [[], ["up"], ["up", "7"], ["up", "x", "file"], ["down", "-1"], ["down", "7", "file"], ["stop", "7"]]:
            code, output = self.run_script(*arguments)
            self.assertEqual((code, "preview.py up NUMBER FILE" in output), (1, True), arguments)
        self.assertEqual(self.neon.calls, [])


class Workflow(unittest.TestCase):
    """The steps of preview.yml that follow the deployment, with stand-ins for the deploy command and GitHub's CLI."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.jobs = yaml.safe_load((stand_ins.ROOT / ".github/workflows/preview.yml").read_text())["jobs"]

    def program(self, path, script):
        program = self.folder / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def step(self, step, **environment):
        """Runs a step as GitHub does with `shell: bash`. Returns its exit code."""
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **environment, "PATH": path, "RUNNER_TEMP": "temp", "GITHUB_OUTPUT": "output"}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        return subprocess.run(command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL).returncode

    def deploy(self, script):
        """Runs the deployment with this as the deploy command. Returns its exit code, and the outputs of the step."""
        self.program("target/debug/devtools", f'printf "%s\\n" "$@" > arguments\n{script}')
        self.assertEqual(self.jobs["deploy"]["defaults"]["run"]["shell"], "bash")
        [step] = [step for step in self.jobs["deploy"]["steps"] if step.get("id") == "deploy"]
        output = self.folder / "output"
        output.unlink(missing_ok=True)
        return self.step(step), output.read_text() if output.exists() else ""

    def test_the_deployed_address_is_an_output(self):
        url = "https://abc123.execute-api.eu-central-1.amazonaws.com"
        self.assertEqual(self.deploy(f"printf '== Calling\\n\\nUrl      {url}\\nDocsUrl  {url}/docs\\n'"), (0, f"url={url}\n"))
        arguments = (self.folder / "arguments").read_text().split()
        self.assertEqual(arguments, ["deploy", "preview", "--config-file", "temp/preview.toml", "--built", ".aws-sam/build"])

    def test_a_deployment_that_failed_fails_the_step(self):
        self.assertEqual(self.deploy("exit 1"), (1, ""))

    def test_the_comment_names_the_commit_and_the_address(self):
        self.program("gh", 'printf "%s\\n" "$@" > arguments')
        [step] = self.jobs["comment"]["steps"]
        self.assertEqual(self.step(step, NUMBER="7", COMMIT="0123abc", URL="https://api.example.com/$(id)"), 0)
        arguments = (self.folder / "arguments").read_text().splitlines()
        self.assertEqual(arguments[:-1], ["pr", "comment", "7", "--edit-last", "--create-if-none", "--body"])
        self.assertEqual(
            arguments[-1],
            "Preview of 0123abc at https://api.example.com/$(id) (https://api.example.com/$(id)/docs). "
            "It goes when the pull request is closed.",
        )


if __name__ == "__main__":
    unittest.main()
