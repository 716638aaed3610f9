"""Makes CloudFormation of template.yaml, with the translator that AWS runs (it comes with the SAM CLI), for each combination of
the parameters below; then looks for circular dependencies in the results, as CloudFormation does.

    translate.py TEMPLATE FOLDER

Writes each different result into FOLDER and prints its name. Exits with 1 when resources depend on each other in a circle.
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

# It warns that it has no connection to AWS's own feature switches.
logging.disable()

# What decides which resources there are, or what they refer to: without, and with.
CHOICES = {
    "GradualDeployment": ["false", "true"],
    "TrustedOrigins": ["", "https://app.example.com,https://www.example.com"],
    "SecretsKmsKeyArn": ["", "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"],
    "AlarmTopicArn": ["", "arn:aws:sns:us-east-1:123456789012:alarms"],
    "PermissionsBoundaryArn": ["", "arn:aws:iam::123456789012:policy/boundary"],
}
# Those without a default.
REQUIRED = {
    "ApiSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:task-api/dev/api-AbCdEf",
    "DatabaseSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:task-api/dev/database-AbCdEf",
    "OwnerSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:task-api/dev/owner-AbCdEf",
    "BetterAuthUrl": "https://app.example.com",
    "AlarmEmail": "alarms@example.com",
}


class NoManagedPolicies:
    """The template names no managed policy of AWS's; the real loader would ask IAM for them."""

    def load(self):
        return {}


def translated(path, values):
    """The template as CloudFormation gets it, with these parameters."""
    with open(path) as file:
        template = yaml_parse(file.read())
    # `sam deploy` uploads the code first.
    for part in [template["Globals"]["Function"], *[it.get("Properties", {}) for it in template["Resources"].values()]]:
        if "CodeUri" in part:
            part["CodeUri"] = "s3://bucket/key"
    return transform(template, values, NoManagedPolicies())


def names_in(value):
    """The logical ids that a part of a resource refers to."""
    if isinstance(value, list):
        for item in value:
            yield from names_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref":
                yield item
            elif key == "Fn::GetAtt":
                yield (item.split(".") if isinstance(item, str) else item)[0]
            elif key == "Fn::Sub":
                text, variables = (item, {}) if isinstance(item, str) else item
                yield from (name.split(".")[0] for name in re.findall(r"\$\{([^!}]+)\}", text) if name not in variables)
                yield from names_in(variables)
            else:
                yield from names_in(item)


def circle(template):
    """Resources that depend on each other in a circle, or nothing.

    By all that CloudFormation counts: references anywhere in a resource, UpdatePolicy included (which cfn-lint and
    `sam validate` do not look at in AWS::Serverless types), both branches of each Fn::If, and DependsOn.
    """
    resources = template["Resources"]
    graph = {}
    for name, resource in resources.items():
        depends_on = resource.get("DependsOn", [])
        depends_on = [depends_on] if isinstance(depends_on, str) else depends_on
        graph[name] = {other for other in [*names_in(resource), *depends_on] if other in resources}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def main():
    path, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    results = {}
    for number, values in enumerate(itertools.product(*CHOICES.values())):
        chosen = dict(zip(CHOICES, values))
        template = translated(path, {**REQUIRED, **chosen})
        found = circle(template)
        if found:
            sys.exit(f"{path} with {chosen}: circular dependency: {' -> '.join(reversed(found))}")
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
