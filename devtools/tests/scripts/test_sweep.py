"""Tests of devtools/sam/sweep.py with moto: which versions it deletes, and what it does when AWS refuses something."""

import json
import unittest

import stand_ins

STACK = "task-api-dev"
SAM_STACK = "aws-sam-cli-managed-default"
# More than fit on a page.
FUNCTIONS = ["create", "delete", "get", "list"]
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}


class Sweep(unittest.TestCase):
    def setUp(self):
        self.aws = stand_ins.Aws(self)
        self.client = self.aws.client("lambda")
        role = self.aws.client("iam").create_role(RoleName="function", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
        self.properties = {"Role": role, "Runtime": "provided.al2023", "Handler": "bootstrap", "Code": {"ZipFile": "x"}}
        resources = {"Queue": {"Type": "AWS::SQS::Queue"}}
        for name in FUNCTIONS:
            properties = {**self.properties, "FunctionName": f"{STACK}-{name}"}
            resources[name] = {"Type": "AWS::Lambda::Function", "Properties": properties}
        self.make_stack(STACK, resources)
        self.make_stack(SAM_STACK, {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "uploads"}}})

    def make_stack(self, name, resources):
        self.aws.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}))

    def publish(self, function, count):
        """Publishes versions, and points the alias `live` to the last one."""
        for number in range(count):
            self.client.update_function_configuration(FunctionName=function, Description=f"number {number}")
            version = self.client.publish_version(FunctionName=function)["Version"]
        self.client.create_alias(FunctionName=function, Name="live", FunctionVersion=version)

    def versions(self, function):
        pages = self.client.get_paginator("list_versions_by_function").paginate(FunctionName=function)
        return [version["Version"] for page in pages for version in page["Versions"]]

    def sweep(self):
        return stand_ins.run("devtools/sam/sweep.py", STACK, stand_ins.REGION)

    def rules(self):
        return self.aws.client("s3").get_bucket_lifecycle_configuration(Bucket="uploads")["Rules"]

    def test_the_newest_five_versions_stay_and_those_of_every_alias(self):
        function = f"{STACK}-list"
        self.publish(function, 12)
        # The aliases are on two pages, and the versions on five.
        rollout = {"AdditionalVersionWeights": {"4": 0.1}}
        self.client.update_alias(FunctionName=function, Name="live", FunctionVersion="12", RoutingConfig=rollout)
        for name, version in [("a", "11"), ("b", "10"), ("pinned", "2")]:
            self.client.create_alias(FunctionName=function, Name=name, FunctionVersion=version)
        self.assertEqual(self.sweep(), (0, "5 old versions of functions deleted\nThe bucket uploads has a lifecycle now\n"))
        self.assertEqual(self.versions(function), ["$LATEST", "2", "4", "8", "9", "10", "11", "12"])
        deleted = [arguments for operation, arguments in self.aws.calls if operation == "DeleteFunction"]
        self.assertEqual([it["Qualifier"] for it in deleted], ["7", "6", "5", "3", "1"])

    def test_every_function_of_the_stack_is_swept_and_no_other(self):
        other = "another-function"
        code = {**self.properties, "Code": {"ZipFile": b"x"}}
        self.client.create_function(FunctionName=other, **code)
        for function in [*(f"{STACK}-{name}" for name in FUNCTIONS), other]:
            self.publish(function, 7)
        code, output = self.sweep()
        self.assertEqual((code, output.splitlines()[0]), (0, "8 old versions of functions deleted"))
        for name in FUNCTIONS:
            self.assertEqual(self.versions(f"{STACK}-{name}"), ["$LATEST", "3", "4", "5", "6", "7"])
        self.assertEqual(len(self.versions(other)), 8)

    def test_a_refusal_for_one_function_is_reported_and_does_not_stop_the_others(self):
        for name in FUNCTIONS:
            self.publish(f"{STACK}-{name}", 6)
        self.aws.refuse("DeleteFunction", FunctionName=f"{STACK}-create")
        self.aws.refuse("ListAliases", FunctionName=f"{STACK}-get")
        code, output = self.sweep()
        self.assertEqual(code, 1)
        self.assertIn("2 old versions of functions deleted\nThe bucket uploads has a lifecycle now\n", output)
        self.assertRegex(output, f"\n{STACK}-create: .*AccessDeniedException.*DeleteFunction")
        self.assertRegex(output, f"\n{STACK}-get: .*AccessDeniedException.*ListAliases")
        self.assertEqual([len(self.versions(f"{STACK}-{name}")) for name in FUNCTIONS], [7, 6, 7, 6])
        # Without its aliases, nobody knows which versions a function needs.
        self.assertEqual(self.aws.count("DeleteFunction"), 3)
        self.aws.allow_all()
        self.assertEqual(self.sweep(), (0, "2 old versions of functions deleted\n"))

    def test_if_nothing_is_old_nothing_is_deleted(self):
        self.publish(f"{STACK}-list", 5)
        self.assertEqual(self.sweep()[0], 0)
        self.assertEqual(self.sweep(), (0, "0 old versions of functions deleted\n"))
        self.assertEqual((self.aws.count("DeleteFunction"), len(self.versions(f"{STACK}-list"))), (0, 6))

    def test_the_bucket_gets_a_lifecycle_once_and_another_one_stays(self):
        self.sweep()
        [rule] = self.rules()
        self.assertEqual((rule["Status"], rule["NoncurrentVersionExpiration"]), ("Enabled", {"NoncurrentDays": 30}))
        # Files that no newer copy has replaced stay.
        self.assertNotIn("Expiration", rule)
        another = {"ID": "mine", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 9}}
        self.aws.client("s3").put_bucket_lifecycle_configuration(Bucket="uploads", LifecycleConfiguration={"Rules": [another]})
        self.assertEqual(self.sweep(), (0, "0 old versions of functions deleted\n"))
        self.assertEqual([rule["ID"] for rule in self.rules()], ["mine"])

    def test_a_bucket_that_cannot_be_read_or_changed_is_reported(self):
        for operation, changes in [("GetBucketLifecycleConfiguration", 0), ("PutBucketLifecycleConfiguration", 1)]:
            self.aws.refuse(operation)
            code, output = self.sweep()
            self.assertEqual(code, 1)
            self.assertRegex(output, f"^0 old versions of functions deleted\nSAM's bucket: .*AccessDeniedException.*{operation}.*\n$")
            self.assertEqual(self.aws.count("PutBucketLifecycleConfiguration"), changes)
            self.aws.allow_all()

    def test_without_sams_bucket_the_versions_are_deleted_all_the_same(self):
        self.aws.client("cloudformation").delete_stack(StackName=SAM_STACK)
        self.publish(f"{STACK}-list", 6)
        self.assertEqual(self.sweep(), (0, "1 old versions of functions deleted\n"))

    def test_a_stack_that_does_not_exist_is_an_error_in_one_line(self):
        self.aws.client("cloudformation").delete_stack(StackName=STACK)
        code, output = self.sweep()
        self.assertEqual(code, 1)
        self.assertRegex(output, f"^The stack's functions cannot be listed: .*{STACK}.*\n$")


if __name__ == "__main__":
    unittest.main()
