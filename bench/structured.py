"""Benchmark of structured output: `python -m bench.structured`.

In each round, measures the speed of Trident without and then with a JSON schema, and prints both in tokens per second.
At the end, prints the median ratio of the speed with a schema to the speed without a schema.
"""

import argparse
import statistics

import orjson

from bench.chat import MODEL, PromptSource
from tests.support.load import chat_body, run_streams
from tests.support.stack import running_stack

# An array so long that every response reaches its maximum number of tokens.
_SCHEMA = {
    "type": "array",
    "minItems": 100,
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "kind": {"enum": ["fox", "bear"]}},
        "required": ["name", "age", "kind"],
    },
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=100)
    args = parser.parse_args()
    prompts, ratios = PromptSource(), []
    with running_stack([MODEL]) as stack:
        for _ in range(args.rounds):
            plain = [chat_body(MODEL, text, args.tokens) for text in prompts.next_prompts(args.streams)]
            bodies = [chat_body(MODEL, text, args.tokens) for text in prompts.next_prompts(args.streams)]
            with_schema = [
                orjson.dumps(orjson.loads(b) | {"guided_json": _SCHEMA, "ignore_eos": False}) for b in bodies
            ]
            free, constrained = run_streams(stack.port, plain), run_streams(stack.port, with_schema)
            ratios.append(constrained.tokens_per_second / free.tokens_per_second)
            print(
                f"without a schema {free.tokens_per_second:4.0f} tokens/s, with {constrained.tokens_per_second:4.0f}",
                flush=True,
            )
    print(f"ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
