"""Translates template.yaml to CloudFormation, for each combination of the parameters below, and checks the results for circular
dependencies, like CloudFormation does. Uses the translator that AWS runs, which is part of the SAM CLI.

    translate.py TEMPLATE FOLDER

Writes each distinct result into FOLDER and prints its path. Exits with 1 if there is a circular dependency.
"""

import graphlib
import itertools
import json
import logging
import os
import re
import sys

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from samcli.yamlhelper import yaml_parse  # noqa: E402
from samtranslator.translator.transform import transform  # noqa: E402

# The translator warns that it cannot read AWS's feature switches without a connection.
logging.disable()

# Parameters that decide which resources exist or what they refer to.
CHOICES = {
    "GradualDeployment": ["false", "true"],
    "TrustedOrigins": ["", "https://app.example.com,https://www.example.com"],
    "SecretsKmsKeyArn": ["", "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"],
    "AlarmTopicArn": ["", "arn:aws:sns:us-east-1:123456789012:alarms"],
    "PermissionsBoundaryArn": ["", "arn:aws:iam::123456789012:policy/boundary"],
}
# No domain, and one whose certificate and record the stack makes.
DOMAINS = [
    {},
    {"DomainName": "api.example.com", "HostedZoneId": "Z0123456789ABCDEFGHIJ"},
]
# Parameters without a default.
REQUIRED = {
    "ApiSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:task-api/dev/api-AbCdEf",
    "DatabaseSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:task-api/dev/database-AbCdEf",
    "OwnerSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:task-api/dev/owner-AbCdEf",
    "BetterAuthUrl": "https://app.example.com",
    "AlarmEmail": "alarms@example.com",
}


class NoManagedPolicies:
    """Replaces a loader that would call IAM. The template has no AWS managed policies by name."""

    def load(self):
        return {}


def translate(path, values):
    """Translates the template to CloudFormation, with these parameters."""
    with open(path) as file:
        template = yaml_parse(file.read())
    # `sam deploy` uploads the code first and inserts its S3 URI.
    for part in [template["Globals"]["Function"], *[it.get("Properties", {}) for it in template["Resources"].values()]]:
        if "CodeUri" in part:
            part["CodeUri"] = "s3://bucket/key"
    return transform(template, values, NoManagedPolicies())


def referenced_names(value):
    """Yields the logical ids that a part of a resource refers to."""
    if isinstance(value, list):
        for item in value:
            yield from referenced_names(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref":
                yield item
            elif key == "Fn::GetAtt":
                yield (item.split(".") if isinstance(item, str) else item)[0]
            elif key == "Fn::Sub":
                text, variables = (item, {}) if isinstance(item, str) else item
                yield from (name.split(".")[0] for name in re.findall(r"\$\{([^!}]+)\}", text) if name not in variables)
                yield from referenced_names(variables)
            else:
                yield from referenced_names(item)


def find_cycle(template):
    """Returns resources with a circular dependency, or None.

    Like CloudFormation, counts DependsOn, both branches of each Fn::If, and references anywhere in a resource, including its
    UpdatePolicy, which cfn-lint and `sam validate` ignore in AWS::Serverless types.
    """
    resources = template["Resources"]
    graph = {}
    for name, resource in resources.items():
        depends_on = resource.get("DependsOn", [])
        depends_on = [depends_on] if isinstance(depends_on, str) else depends_on
        graph[name] = {other for other in [*referenced_names(resource), *depends_on] if other in resources}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def main():
    path, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    results = {}
    for number, (domain, *values) in enumerate(itertools.product(DOMAINS, *CHOICES.values())):
        chosen = {**domain, **dict(zip(CHOICES, values))}
        template = translate(path, {**REQUIRED, **chosen})
        cycle = find_cycle(template)
        if cycle:
            sys.exit(f"{path} with {chosen}: circular dependency: {' -> '.join(reversed(cycle))}")
        text = json.dumps(template, indent=1, sort_keys=True)
        if text not in results:
            results[text] = f"{folder}/{number:02}.json"
            with open(results[text], "w") as file:
                file.write(text)
    resources = {len(json.loads(text)["Resources"]) for text in results}
    print(f"{number + 1} combinations, {len(results)} different results, {sorted(resources)} resources", file=sys.stderr)
    print("\n".join(results.values()))


if __name__ == "__main__":
    main()
