"""The prefix cache of the real OpenVINO engine after requests were cancelled while their prompts were computed."""

import json
import threading
from multiprocessing import Pipe

import numpy as np
from openvino_genai import Tokenizer as EngineTokenizer
from tokenizers import Tokenizer

from backends.generation.engine.ipc import Cancel, Generate, Shutdown
from backends.generation.engine.pipeline import load_pipeline
from backends.generation.engine.process import Engine
from contract.parameters import GenerationParameters, read_parameters
from contract.paths import default_model_repository, latest_version
from tests.support.live import MODEL
from tests.support.stack import read_config

_MAX_BATCH = 24

FACTS = "The old lighthouse was built in 1872 by forty men. The keeper was called Anna, and her dog was called Bruno. "


class Client:
    """Runs an engine with a new pipeline, and sends it requests."""

    def __init__(self):
        folder = default_model_repository() / MODEL
        texts = {key: value.string_value for key, value in read_config(folder).parameters.items()}
        parameters = read_parameters(GenerationParameters, texts | {"max_num_batched_tokens": str(_MAX_BATCH)})
        version = latest_version(folder)
        tokenizer = EngineTokenizer(str(version))
        end_tokens = json.loads((version / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
        pipeline = load_pipeline(version, parameters, tokenizer)
        self.socket, theirs = Pipe()
        engine = Engine(pipeline, end_tokens, theirs, None, 8, 0, _MAX_BATCH)
        self._thread = threading.Thread(target=engine.run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.send(Shutdown())
        self._thread.join(10)

    def send(self, request_id, ids, tokens):
        parameters = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}
        self.socket.send(Generate(request_id, "c", np.array(ids, np.int64).tobytes(), parameters, 4_000))

    def tokens(self, request_id, count):
        """Return the first tokens of a request, as soon as there are so many."""
        found = []
        while len(found) < count:
            assert self.socket.poll(30)
            for new in self.socket.recv().new_tokens:
                found += new.tokens if new.request_id == request_id else []
        return found


def test_prompt_of_a_cancelled_request_is_answered_correctly():
    tokenizer = Tokenizer.from_file(str(latest_version(default_model_repository() / MODEL) / "tokenizer.json"))
    text = f"<|im_start|>user\n{FACTS * 12}What was the keeper called?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    with Client() as fresh:
        fresh.send(1, ids, 20)
        expected = fresh.tokens(1, 20)
    with Client() as client:
        client.send(1, ids[:40], 3_000)  # takes a place in each step, so that prompts are cut between blocks
        client.tokens(1, 5)
        for request_id, count in ((2, 1), (3, 4), (4, 9)):
            client.send(request_id, ids, 20)
            client.tokens(1, count)
            client.socket.send(Cancel(request_id))
        client.send(5, ids, 20)
        assert client.tokens(5, 20) == expected


def test_cached_tokens_are_reported(client):
    text = " ".join(f"Fact {i} of this test is that {i * i} is the square of {i}." for i in range(40))

    def usage(question):
        messages = [{"role": "user", "content": f"{text} {question}"}]
        found = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4).usage
        # If the cache is almost full, it is not certain whether it still has the default system message.
        return found.prompt_tokens_details and found.prompt_tokens_details.cached_tokens, found.prompt_tokens

    assert (usage("Why?")[0] or 0) <= 32  # at most the default system message
    cached, total = usage("Why?")
    assert cached in (total - 1, total // 32 * 32)  # the answer of another seed may be in the partial block
    cached, total = usage("When was it?")
    assert total - 45 < cached < total
    assert cached % 32 == 0
