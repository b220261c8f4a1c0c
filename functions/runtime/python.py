"""Imprint's runtime client for Python: it loads module.handler and runs it for
each event of the Lambda Runtime API."""

import http.client
import importlib
import json
import os
import sys
import time
import traceback

ENV = os.environ
ADDRESS, _, SECRET = ENV["AWS_LAMBDA_RUNTIME_API"].partition("/")
PREFIX = "/" + SECRET + "/2018-06-01/runtime/"


class Context:
    """What a handler is told about its run."""

    client_context = None
    identity = None

    def __init__(self, headers):
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.function_name = ENV["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = ENV["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = ENV["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = ENV["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = ENV["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._deadline = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self):
        return max(self._deadline - int(time.time() * 1000), 0)

    def log(self, text):
        sys.stdout.write(str(text))


def call(connection, method, where, body=None):
    headers = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, PREFIX + where, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def error_of(error):
    trace = traceback.format_list(traceback.extract_tb(error.__traceback__)[1:])
    said = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": trace}
    return json.dumps(said).encode()


def load():
    sys.path.insert(0, ENV["LAMBDA_TASK_ROOT"])
    module, dot, name = ENV["_HANDLER"].rpartition(".")
    if not dot or not module:
        raise ValueError("Bad handler '%s': not enough values to unpack" % ENV["_HANDLER"])
    return getattr(importlib.import_module(module.replace("/", ".")), name)


def main():
    connection = http.client.HTTPConnection(ADDRESS)
    sys.path.pop(0)  # the directory of this file
    try:
        handler = load()
    except BaseException as error:  # SystemExit, too, is the end of an init
        traceback.print_exc()
        call(connection, "POST", "init/error", error_of(error))
        sys.exit(1)
    while True:
        status, headers, event = call(connection, "GET", "invocation/next")
        if status != 200:
            sys.exit(1)
        where = "invocation/" + headers["Lambda-Runtime-Aws-Request-Id"]
        ENV["_X_AMZN_TRACE_ID"] = headers.get("Lambda-Runtime-Trace-Id", "")
        try:
            result = json.dumps(handler(json.loads(event), Context(headers))).encode()
            where, body = where + "/response", result
        except Exception as error:
            traceback.print_exc()
            where, body = where + "/error", error_of(error)
        status, _, _ = call(connection, "POST", where, body)
        if status not in (202, 413):
            sys.exit(1)


main()
