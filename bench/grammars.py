"""Exactness of compiled grammars: `python -m bench.grammars`.

A compiled grammar should allow exactly the texts that its constraint allows. For each kind of constraint, this program
draws random texts from the compiled grammar, with all tokens equally likely, and prints how many of them violate the
constraint. Texts that are cut off at the token limit are not counted.
"""

import argparse

from contract.paths import default_model_repository, latest_version
from tests.support.grammar_sampling import CASES, GrammarSampler, texts_outside
from tests.support.live import MODEL


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2_000, help="samples of each kind")
    args = parser.parse_args()
    sampler = GrammarSampler(latest_version(default_model_repository() / MODEL))
    for name in CASES:
        outside, complete = texts_outside(sampler, name, args.samples)
        print(f"{name:28} {len(outside)} of {complete} violate the constraint {outside[:3] or ''}", flush=True)


if __name__ == "__main__":
    main()
