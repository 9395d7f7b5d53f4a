"""Tool calls: the model calls a function, this program returns the result, and the model uses it in its answer."""

import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:10100/v1"), api_key="unused")

CAPITALS = {"Japan": "Tokyo", "France": "Paris", "Egypt": "Cairo"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_capital",
            "description": "Return the capital of a country.",
            "parameters": {
                "type": "object",
                "properties": {"country": {"type": "string", "enum": list(CAPITALS)}},
                "required": ["country"],
            },
        },
    }
]

messages = [{"role": "user", "content": "What is the capital of Japan?"}]
response = client.chat.completions.create(
    model="gpt-4o-mini",
    messages=messages,
    tools=TOOLS,
    # The model must call the named function, with arguments that match its parameters; "auto" lets the model decide.
    tool_choice={"type": "function", "function": {"name": "get_capital"}},
    temperature=0,
)
call = response.choices[0].message.tool_calls[0]
arguments = json.loads(call.function.arguments)
print(f"{call.function.name}({arguments})")

messages.append(response.choices[0].message)
messages.append({"role": "tool", "tool_call_id": call.id, "content": CAPITALS[arguments["country"]]})
answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=60, temperature=0)
print(answer.choices[0].message.content)
