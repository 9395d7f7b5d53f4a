"""Computes vectors or scores without Triton: `python -m backends.encoder.vectors FOLDER PARAMETERS TEXTS`.

FOLDER is a version folder, PARAMETERS the parameters in its config.pbtxt as JSON, and TEXTS a JSON list of texts, or of
pairs of a query and a document. Prints the vectors or scores as JSON.
"""

import json
import sys
from pathlib import Path

from backends.common.errors import InvalidRequest
from backends.encoder.network import OnnxNetwork
from backends.encoder.tokens import Text, TextTokenizer
from contract.parameters import EncoderParameters, read_parameters


def compute(folder: Path, parameters: EncoderParameters, texts: list[Text]) -> list[list[float]]:
    """Return a row for each text or pair, all of which are computed together."""
    tokenizer = TextTokenizer(folder / "tokenizer.json", parameters.context_length, parameters.template)
    rows = []
    for row in tokenizer.encode(texts, [False] * len(texts)):
        if isinstance(row, InvalidRequest):
            raise row
        rows.append(row)
    found: list[list[float]] = OnnxNetwork(folder, parameters).run(rows).tolist()
    return found


def main() -> None:
    """Print the rows for the arguments on the command line."""
    texts = [text if isinstance(text, str) else tuple(text) for text in json.loads(sys.argv[3])]
    parameters = read_parameters(EncoderParameters, json.loads(sys.argv[2]))
    print(json.dumps(compute(Path(sys.argv[1]), parameters, texts)))


if __name__ == "__main__":
    main()
