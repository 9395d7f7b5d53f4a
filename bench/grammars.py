"""Exactness of compiled grammars: `python -m bench.grammars`.

Samples texts that the engine's compiled grammars allow, all tokens being equally likely, and prints for each kind of
constraint how many of them the constraint does not allow.
"""

import argparse

from contract.paths import default_model_repository
from tests.support.grammar_sampling import CASES, GrammarSampler, texts_outside
from tests.support.live import MODEL


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2_000, help="samples of each kind")
    args = parser.parse_args()
    sampler = GrammarSampler(default_model_repository() / MODEL / "1")
    for name in CASES:
        outside = texts_outside(sampler, name, args.samples)
        print(f"{name:22} {len(outside)} of {args.samples} outside {outside[:3] or ''}", flush=True)


if __name__ == "__main__":
    main()
