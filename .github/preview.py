"""The parts of a preview that SAM does not make: a branch of the database at Neon, and three secrets.

    preview.py up NUMBER FILE     makes them, and writes the settings of 'cargo xtask deploy preview' to FILE
    preview.py down NUMBER        removes them, the stack and its logs

NUMBER is the pull request's. Everything is named after it, so both can be run again at any time. Reads NEON_API_KEY,
NEON_PROJECT_ID, NEON_PARENT_BRANCH (the id of a branch without people's data), FRONT_END, AWS_REGION and, if roles need
one, BOUNDARY_ARN. Prints no secret.
"""

import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import boto3
from botocore.exceptions import BotoCoreError, ClientError

NEON = os.environ.get("NEON_API", "https://console.neon.tech/api/v2")
# Seconds that a new branch may take, and for which other operations of the project may keep it locked.
NEON_LIMIT = 120
# Seconds between two looks at it.
NEON_PAUSE = 2
# Neon's status while another operation of the project runs: "Locked". Nothing was done then.
LOCKED = 423
DATABASE, OWNER = "neondb", "neondb_owner"
SECRETS = ["api", "database", "owner"]


def neon(method, path, body=None):
    """Calls Neon's API, and returns the answer. While another operation keeps the project locked, it waits."""
    request = urllib.request.Request(
        f"{NEON}/projects/{os.environ['NEON_PROJECT_ID']}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['NEON_API_KEY']}",
            "Accept": "application/json",
            "Content-Type": "application/json",
        },
    )
    call = f"{method} {request.full_url.split('?')[0]}"
    until = time.monotonic() + NEON_LIMIT
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != LOCKED or time.monotonic() > until:
                # Not the body, in case it repeats what was sent.
                sys.exit(f"Neon answered {error.code} to {call}")
        except OSError as error:
            sys.exit(f"Neon cannot be reached for {call}: {getattr(error, 'reason', error)}")
        except ValueError:
            sys.exit(f"Neon's answer to {call} is not JSON")
        time.sleep(NEON_PAUSE)


def find_branch(name):
    """Returns the id of the branch with this name, or None."""
    # The search finds parts of names too, and more of them than a page has by default.
    query = urllib.parse.urlencode({"search": name, "limit": 10000})
    branches = neon("GET", f"/branches?{query}")["branches"]
    return next((branch["id"] for branch in branches if branch["name"] == name), None)


def make_branch(name):
    """Creates the branch if it is missing. Returns its id, and the owner's URL without the pooler."""
    branch = find_branch(name)
    if branch is None:
        wanted = {"branch": {"name": name, "parent_id": os.environ["NEON_PARENT_BRANCH"]}, "endpoints": [{"type": "read_write"}]}
        branch = neon("POST", "/branches", wanted)["branch"]["id"]
    until = time.monotonic() + NEON_LIMIT
    while neon("GET", f"/branches/{branch}")["branch"]["current_state"] != "ready":
        if time.monotonic() > until:
            sys.exit(f"Neon's branch {name} is not ready after {NEON_LIMIT} s")
        time.sleep(NEON_PAUSE)
    query = urllib.parse.urlencode({"branch_id": branch, "database_name": DATABASE, "role_name": OWNER, "pooled": "false"})
    return branch, neon("GET", f"/connection_uri?{query}")["uri"]


def contents(owner_url):
    """Returns the three secrets' contents. The password of tasks_api is new; migrate sets it."""
    owner = urllib.parse.urlsplit(owner_url)
    endpoint, _, domain = owner.hostname.partition(".")
    host = f"{endpoint}-pooler.{domain}"
    url = f"postgresql://tasks_api:{secrets.token_hex(32)}@{host}{owner.path}?sslmode=require"
    return {
        "api": {"DATABASE_URL": url, "BETTER_AUTH_SECRET": os.environ.get("BETTER_AUTH_SECRET") or secrets.token_hex(32)},
        "database": {"DATABASE_URL": url},
        "owner": {"DATABASE_URL_UNPOOLED": owner_url},
    }


def make_secrets(client, number, branch, owner_url):
    """Creates the secrets, unless all of them exist for this branch, and returns their ARNs by name."""
    arns, branches = {}, set()
    for name in SECRETS:
        try:
            secret = client.describe_secret(SecretId=f"task-api/preview-{number}/{name}")
        except client.exceptions.ResourceNotFoundException:
            continue
        arns[name] = secret["ARN"]
        branches.add(secret.get("Description"))
    # The role may not read secrets, so their description says whose URLs they have: somebody may have removed the branch.
    description = f"Neon's branch {branch}"
    if len(arns) == len(SECRETS) and branches == {description}:
        return arns
    for name, content in contents(owner_url).items():
        values = {"Description": description, "SecretString": json.dumps(content)}
        if name in arns:
            client.update_secret(SecretId=arns[name], **values)
        else:
            arns[name] = client.create_secret(Name=f"task-api/preview-{number}/{name}", **values)["ARN"]
    return arns


def settings(number, arns):
    """Returns the text of a samconfig.toml for the preview's stack."""
    parameters = {
        "Environment": "dev",
        "Alarms": "false",
        "GradualDeployment": "false",
        "LogRetentionDays": "1",
        "PurgeSchedule": "rate(1 day)",
        "ApiSecretArn": arns["api"],
        "DatabaseSecretArn": arns["database"],
        "OwnerSecretArn": arns["owner"],
        "BetterAuthUrl": os.environ["FRONT_END"],
        "PermissionsBoundaryArn": os.environ.get("BOUNDARY_ARN", ""),
        "DeploymentId": "",
    }
    lines = "".join(f"  '{name}=\"{value}\"',\n" for name, value in parameters.items())
    return f"""version = 0.1

[preview.deploy.parameters]
stack_name = "task-api-pr-{number}"
capabilities = "CAPABILITY_IAM"
resolve_s3 = true
confirm_changeset = false
parameter_overrides = [
{lines}]
"""


def aws(service):
    """Returns a client of an AWS service. botocore itself reads another variable than AWS_REGION."""
    return boto3.client(service, region_name=os.environ["AWS_REGION"])


def up(number, file):
    branch, owner_url = make_branch(f"preview/pr-{number}")
    arns = make_secrets(aws("secretsmanager"), number, branch, owner_url)
    with open(file, "w") as output:
        output.write(settings(number, arns))


def delete_logs(stack):
    """Deletes the log groups, which outlive their stack: with them, a stack of the same name could not be created."""
    logs = aws("logs")
    for prefix in [f"/aws/lambda/{stack}-", f"/aws/vendedlogs/{stack}-"]:
        for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
            for group in page["logGroups"]:
                logs.delete_log_group(logGroupName=group["logGroupName"])


def down(number):
    stack = f"task-api-pr-{number}"
    cloudformation = aws("cloudformation")
    cloudformation.delete_stack(StackName=stack)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack)
    delete_logs(stack)
    client = aws("secretsmanager")
    for name in SECRETS:
        try:
            client.delete_secret(SecretId=f"task-api/preview-{number}/{name}", ForceDeleteWithoutRecovery=True)
        except client.exceptions.ResourceNotFoundException:
            pass
    branch = find_branch(f"preview/pr-{number}")
    if branch is not None:
        neon("DELETE", f"/branches/{branch}")


def main():
    match sys.argv[1:]:
        case ["up", number, file] if number.isdecimal():
            up(number, file)
        case ["down", number] if number.isdecimal():
            down(number)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"AWS: {error}")
