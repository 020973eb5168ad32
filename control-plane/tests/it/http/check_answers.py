"""Compares real requests and answers with an OpenAPI document. Prints one line for each difference.

Input: {"document": …, "exchanges": [{"method", "path", "request", "accepted", "status", "headers", "body"}]}
"""
import json, sys
from jsonschema import Draft202012Validator

given = json.load(sys.stdin)
document = given["document"]


def resolve(value):
    while "$ref" in value:
        target = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        value = target
    return value


def faults(schema, value):
    # The root must hold the schemas that references lead to.
    return [error.message for error in Draft202012Validator({**document, "allOf": [schema]}).iter_errors(value)]


for exchange in given["exchanges"]:
    name = f'{exchange["method"]} {exchange["path"]} {exchange["request"]} {exchange["status"]}'
    operation = document["paths"][exchange["path"]][exchange["method"]]
    response = operation["responses"].get(str(exchange["status"]))
    if response is None:
        print(f"{name}: the status is not documented")
        continue
    response = resolve(response)
    documented = {header.lower() for header in response.get("headers", {})}
    for header in {"retry-after", "www-authenticate"} & set(exchange["headers"]) - documented:
        print(f"{name}: the header {header} is not documented")
    content = response["content"].get(exchange["headers"]["content-type"].split(";")[0])
    if content is None:
        print(f"{name}: the media type is not documented")
        continue
    for fault in faults(content["schema"], exchange["body"]):
        print(f"{name}: answer: {fault}")
    if exchange["request"] is None:
        continue
    refused = faults(operation["requestBody"]["content"]["application/json"]["schema"], exchange["request"])
    if exchange["accepted"] and refused:
        print(f"{name}: request: {refused}")
    if exchange["status"] == 422 and exchange["body"]["code"] == "invalid" and not refused:
        print(f"{name}: the schema accepts a refused request")
