"""Removes what deployments leave behind.

    sweep.py STACK REGION [PROFILE]

Deletes the versions of the stack's functions but the newest five and those that an alias points to. Gives the bucket to which SAM
uploads code a lifecycle, if it has none: old copies of a file go after 30 days, unfinished uploads after 7. Files that no
newer copy has replaced stay: CloudFormation needs them to roll back. Needs boto3, which is part of the SAM CLI.
"""

import sys

import boto3
from botocore.exceptions import ClientError

KEPT_VERSIONS = 5
# The stack with the bucket of `resolve_s3 = true`.
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
    """Deletes old versions of all functions, and returns how many."""
    client = session.client("lambda")
    count = 0
    for function in resources(session, stack, "AWS::Lambda::Function"):
        versions = list(client.get_paginator("list_versions_by_function").paginate(FunctionName=function).search("Versions[]"))
        aliases = list(client.get_paginator("list_aliases").paginate(FunctionName=function).search("Aliases[]"))
        for version in surplus(versions, aliases):
            client.delete_function(FunctionName=function, Qualifier=version)
            count += 1
    return count


def set_lifecycle(session):
    """Gives SAM's bucket a lifecycle, unless it has one."""
    client = session.client("s3")
    for bucket in resources(session, SAM_STACK, "AWS::S3::Bucket"):
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
    print(f"{delete_old_versions(session, stack)} old versions of functions deleted")
    set_lifecycle(session)


if __name__ == "__main__":
    main()
