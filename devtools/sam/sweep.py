"""Removes what deployments leave behind.

    sweep.py STACK REGION [PROFILE]

Deletes the versions of the stack's functions but the newest five and those that an alias points to. Gives the bucket to which SAM
uploads code a lifecycle, if it has none: old copies of a file go after 30 days, unfinished uploads after 7. Files that no
newer copy has replaced stay: CloudFormation needs them to roll back. Needs boto3, which is part of the SAM CLI. What fails for
one function is reported at the end, with the exit code 1, and does not stop the others.
"""

import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError

KEPT_VERSIONS = 5
# The stack with the bucket of `resolve_s3 = true`. Who names a bucket of their own may have none.
SAM_STACK = "aws-sam-cli-managed-default"
LIFECYCLE = {
    "Rules": [
        {
            "ID": "old-copies-and-unfinished-uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        }
    ]
}


def resources(session, stack, kind):
    """Yields the physical ids of a stack's resources of one type."""
    for page in session.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack):
        for resource in page["StackResourceSummaries"]:
            if resource["ResourceType"] == kind:
                yield resource["PhysicalResourceId"]


def surplus(versions, aliases):
    """Returns the numbers of the versions to delete."""
    in_use = set()
    for alias in aliases:
        in_use.add(alias["FunctionVersion"])
        in_use.update((alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {})
    numbers = sorted((int(version["Version"]) for version in versions if version["Version"] != "$LATEST"), reverse=True)
    return [str(number) for number in numbers[KEPT_VERSIONS:] if str(number) not in in_use]


def delete_old_versions(session, stack):
    """Deletes old versions of all functions. Returns how many, and what failed."""
    client = session.client("lambda")
    count, problems = 0, []
    for function in resources(session, stack, "AWS::Lambda::Function"):
        try:
            versions = list(client.get_paginator("list_versions_by_function").paginate(FunctionName=function).search("Versions[]"))
            aliases = list(client.get_paginator("list_aliases").paginate(FunctionName=function).search("Aliases[]"))
            for version in surplus(versions, aliases):
                client.delete_function(FunctionName=function, Qualifier=version)
                count += 1
        except (BotoCoreError, ClientError) as error:
            problems.append(f"{function}: {error}")
    return count, problems


def sam_buckets(session):
    """Returns the buckets of SAM's stack: one, or none if there is no such stack."""
    try:
        return list(resources(session, SAM_STACK, "AWS::S3::Bucket"))
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        return []


def set_lifecycle(session):
    """Gives SAM's bucket a lifecycle, unless it has one."""
    client = session.client("s3")
    for bucket in sam_buckets(session):
        try:
            client.get_bucket_lifecycle_configuration(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
                raise
            client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=LIFECYCLE)
            print(f"The bucket {bucket} has a lifecycle now")


def main():
    stack, region, *profile = sys.argv[1:]
    session = boto3.Session(region_name=region, profile_name=profile[0] if profile else None)
    count, problems = delete_old_versions(session, stack)
    print(f"{count} old versions of functions deleted")
    try:
        set_lifecycle(session)
    except (BotoCoreError, ClientError) as error:
        problems.append(f"SAM's bucket: {error}")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    try:
        main()
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"The stack's functions cannot be listed: {error}")
