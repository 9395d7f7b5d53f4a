"""Structured output: JSON that matches a schema, and a choice from a list."""

import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:10100/v1"), api_key="unused")

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "languages": {"type": "array", "items": {"enum": ["English", "Chinese", "Spanish"]}, "maxItems": 3},
    },
    "required": ["name", "age", "languages"],
    "additionalProperties": False,
}

response = client.chat.completions.create(
    model="gpt-4o-mini",
    messages=[{"role": "user", "content": "Describe a person: Ada is 36 and speaks English and Spanish."}],
    response_format={"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}},
    temperature=0,
)
print(json.loads(response.choices[0].message.content))

response = client.chat.completions.create(
    model="gpt-4o-mini",
    messages=[{"role": "user", "content": "Classify the sentiment of this text as positive or negative: I loved it."}],
    extra_body={"guided_choice": ["positive", "negative"]},
    temperature=0,
)
print(response.choices[0].message.content)
