"""Benchmark of prompt-lookup decoding (the parameter `prompt_lookup`): `make bench BENCH=lookup`.

Two instances of Trident, one with prompt-lookup decoding and one without, take turns with the same prompts. One prompt
asks the model to repeat a text, and most draft tokens are accepted. The other asks for a story, and few draft tokens
are accepted. Draft tokens make a step slower whether or not they are accepted, especially if there are several streams.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.support.load import chat_body, run_streams
from tests.support.stack import make_repository, running_stack

MODEL = "smollm2-135m"
_TEXT = (
    "The old lighthouse on the northern cape was built in 1872 by a crew of forty men, who carried every stone up the "
    "cliff by hand. Its lamp burned oil until 1931, when electricity came to the village. Today it is a museum, and "
    "visitors can climb its 196 steps to see the bay."
)
_PROMPTS = {
    "a repeated text": "Number {}. Repeat this text word for word: " + _TEXT,
    "a story": "Number {}: tell me a long story about a fox in the wood and a bear who was his friend.",
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--num-draft-tokens", default="3")
    args = parser.parse_args()
    number = 0

    def speed(port: int, prompt: str, count: int) -> float:
        texts = [prompt.format(number - i) for i in range(count)]
        return run_streams(port, [chat_body(MODEL, text, args.tokens) for text in texts]).tokens_per_second

    with (
        tempfile.TemporaryDirectory() as folder,
        running_stack([MODEL]) as plain,
        running_stack(
            [MODEL],
            "--model-repository",
            str(make_repository(Path(folder), MODEL, {"prompt_lookup": args.num_draft_tokens})),
        ) as lookup,
    ):
        for kind, prompt in _PROMPTS.items():
            for count in args.streams:
                ratios = []
                for _ in range(args.rounds):
                    number += count
                    without = speed(plain.port, prompt, count)
                    ratios.append(speed(lookup.port, prompt, count) / without)
                ratio = statistics.median(ratios)
                print(f"{kind}, {count} streams: {args.num_draft_tokens} draft tokens / none = {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
