"""Measures whether structured outputs end: `python -m bench.schema_prompt [MODEL …]`.

For each model, asks for 50 outputs with a JSON schema, in which strings and arrays have no maximum length. Prints how
many outputs end by themselves and are valid, without and with the schema in the prompt, and with the model's own
parameters.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
from openai import OpenAI

from frontend.settings import Settings
from tests.support.live import url, user
from tests.support.stack import make_repository, running_stack

_MAX_TOKENS = 400

# The parameters of the model for each measurement.
_VARIANTS = {
    "without the schema in the prompt": {"schema_in_prompt": "false", "structured_frequency_penalty": "0"},
    "with the schema in the prompt": {"schema_in_prompt": "true", "structured_frequency_penalty": "0"},
    "with the model's own parameters": {},
}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT, _TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
_CASES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (
        _object(setup=_TEXT, punchline=_TEXT),
        (
            "Tell me a joke.",
            "Tell me a joke about cats.",
            "Make me laugh.",
            "A short joke for children, please.",
            "Tell a joke about a programmer.",
        ),
    ),
    (
        _object(name=_TEXT, age={"type": "integer"}, city=_TEXT),
        (
            "Invent a person.",
            "Who is Anna, 31, from Rome?",
            "Describe a typical customer.",
            "Extract: Bob Smith, 42, lives in Oslo.",
            "Make up a character for a novel.",
        ),
    ),
    (
        _object(title=_TEXT, ingredients=_TEXTS, steps=_TEXTS),
        (
            "A recipe for pancakes.",
            "How do I make tomato soup?",
            "Give me a quick salad recipe.",
            "Recipe for chocolate cake",
            "Something to cook with eggs and rice.",
        ),
    ),
    (
        _object(sentiment={"enum": ["positive", "negative", "neutral"]}, reason=_TEXT),
        (
            "I love this phone!",
            "The food was cold and the staff rude.",
            "It is a chair.",
            "Great movie, boring end.",
            "Never again.",
        ),
    ),
    (
        _object(question=_TEXT, answer=_TEXT, difficulty={"enum": ["easy", "medium", "hard"]}),
        (
            "A quiz question about history.",
            "A quiz question about space.",
            "Ask me something about animals.",
            "A math question for a child.",
            "A hard question about chemistry.",
        ),
    ),
    (
        _object(answer=_TEXT),
        (
            "What is the capital of Japan?",
            "Why is the sky blue?",
            "What is 12 times 12?",
            "Who wrote Hamlet?",
            "How many legs does a spider have?",
        ),
    ),
    (
        _object(summary=_TEXT, keywords=_TEXTS),
        (
            "Summarize: The cat sat on the mat and slept all day.",
            "Summarize the plot of Romeo and Juliet.",
            "What is machine learning?",
            "Explain photosynthesis.",
            "Tell me about the Eiffel Tower.",
        ),
    ),
    (
        _object(product=_TEXT, price={"type": "number"}, in_stock={"type": "boolean"}),
        (
            "A laptop for 999 dollars, available.",
            "Invent a product.",
            "The red shoes cost 59.90 and are sold out.",
            "Describe a coffee machine for sale.",
            "A bicycle",
        ),
    ),
    (
        _object(to=_TEXT, subject=_TEXT, body=_TEXT),
        (
            "Write an email to my boss that I am sick.",
            "Invite Tom to dinner.",
            "Ask the landlord to repair the heating.",
            "Thank grandma for the present.",
            "Cancel my gym membership.",
        ),
    ),
    (
        _object(events={"type": "array", "items": _object(name=_TEXT, date=_TEXT)}),
        (
            "My plans: dentist on Monday, party on Friday.",
            "List important events of World War II.",
            "When are the main holidays?",
            "Meeting with Eva on 3 May, flight on 5 May.",
            "Three events in a museum.",
        ),
    ),
]


def _requests() -> Iterator[tuple[int, dict[str, Any], str]]:
    for schema, prompts in _CASES:
        for seed, prompt in enumerate(prompts):
            yield seed, schema, prompt


def _ends(stack: Settings, model: str, seed: int, schema: dict[str, Any], prompt: str) -> bool:
    """Return whether an output ends before the token limit. Raises ValidationError if it violates the schema."""
    client = OpenAI(base_url=url(stack, "/v1"), api_key="unused", timeout=600)
    form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    messages: Any = user(prompt)
    choice = client.chat.completions.create(
        model=model, messages=messages, seed=seed, max_tokens=_MAX_TOKENS, response_format=form
    ).choices[0]
    if choice.finish_reason == "stop":
        jsonschema.validate(json.loads(choice.message.content or ""), schema)
    return choice.finish_reason == "stop"


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["smollm2-135m", "qwen2.5-coder-0.5b"])
    for model in parser.parse_args().models:
        for name, parameters in _VARIANTS.items():
            ended = _measure(model, parameters)
            print(f"{model} {name}: {sum(ended)} of {len(ended)} end and are valid", flush=True)


def _measure(model: str, parameters: dict[str, str]) -> list[bool]:
    """Return for each request whether its output ends, with these parameters of the model."""
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder), model, parameters)
        with running_stack([model], "--model-repository", str(repository)) as stack, ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda request: _ends(stack, model, *request), _requests()))


if __name__ == "__main__":
    main()
