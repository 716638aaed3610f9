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

NEON = os.environ.get("NEON_API", "https://console.neon.tech/api/v2")
# Seconds that a new branch may take.
NEON_LIMIT = 120
DATABASE, OWNER = "neondb", "neondb_owner"
SECRETS = ["api", "database", "owner"]


def neon(method, path, body=None):
    """Calls Neon's API, and returns the answer."""
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
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def find_branch(name):
    """Returns the id of the branch with this name, or None."""
    branches = neon("GET", f"/branches?search={urllib.parse.quote(name)}")["branches"]
    return next((branch["id"] for branch in branches if branch["name"] == name), None)


def make_branch(name):
    """Creates the branch if it is missing, and returns the owner's URL without the pooler."""
    branch = find_branch(name)
    if branch is None:
        wanted = {"branch": {"name": name, "parent_id": os.environ["NEON_PARENT_BRANCH"]}, "endpoints": [{"type": "read_write"}]}
        branch = neon("POST", "/branches", wanted)["branch"]["id"]
    until = time.monotonic() + NEON_LIMIT
    while neon("GET", f"/branches/{branch}")["branch"]["current_state"] != "ready":
        if time.monotonic() > until:
            sys.exit(f"Neon's branch {name} is not ready after {NEON_LIMIT} s")
        time.sleep(2)
    query = urllib.parse.urlencode({"branch_id": branch, "database_name": DATABASE, "role_name": OWNER, "pooled": "false"})
    return neon("GET", f"/connection_uri?{query}")["uri"]


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


def make_secrets(client, number, owner_url):
    """Creates the secrets, unless all of them exist, and returns their ARNs by name."""
    arns = {}
    for name in SECRETS:
        try:
            arns[name] = client.describe_secret(SecretId=f"task-api/preview-{number}/{name}")["ARN"]
        except client.exceptions.ResourceNotFoundException:
            pass
    if len(arns) == len(SECRETS):
        return arns
    for name, content in contents(owner_url).items():
        text = json.dumps(content)
        if name in arns:
            client.put_secret_value(SecretId=arns[name], SecretString=text)
        else:
            arns[name] = client.create_secret(Name=f"task-api/preview-{number}/{name}", SecretString=text)["ARN"]
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


def up(number, file):
    arns = make_secrets(boto3.client("secretsmanager"), number, make_branch(f"preview/pr-{number}"))
    with open(file, "w") as output:
        output.write(settings(number, arns))


def delete_logs(stack):
    """Deletes the log groups, which outlive their stack: with them, a stack of the same name could not be created."""
    logs = boto3.client("logs")
    for prefix in [f"/aws/lambda/{stack}-", f"/aws/vendedlogs/{stack}-"]:
        for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
            for group in page["logGroups"]:
                logs.delete_log_group(logGroupName=group["logGroupName"])


def down(number):
    stack = f"task-api-pr-{number}"
    cloudformation = boto3.client("cloudformation")
    cloudformation.delete_stack(StackName=stack)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack)
    delete_logs(stack)
    client = boto3.client("secretsmanager")
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
    except urllib.error.HTTPError as error:
        sys.exit(f"Neon answered {error.code} to {error.geturl().split('?')[0]}")
