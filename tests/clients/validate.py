"""A validator of JSON Schema.

Reads a schema, and then things to validate by it, each in a line of JSON. Answers each of these with a line: `null`, or
what is wrong, as JSON.
"""

import json
import sys

import jsonschema

schema = json.loads(sys.stdin.readline())
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)
for line in sys.stdin:
    error = jsonschema.exceptions.best_match(validator.iter_errors(json.loads(line)))
    said = None if error is None else f"{error.json_path}: {error.message}"
    print(json.dumps(said), flush=True)
