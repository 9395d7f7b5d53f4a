"""The keys by which requests with the same prefix are sent to the same instance."""

import orjson
import pytest
from xxhash import xxh64

from frontend.triton.affinity import affinity_key, prompt_blocks

SYSTEM = {"role": "system", "content": "Be brief. " * 40}
LONG_SYSTEM = {"role": "system", "content": "Use the tools. " * 2000}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def chat(*messages, **inputs):
    tools = {"tools": orjson.dumps(inputs.pop("tools"))} if "tools" in inputs else {}
    return affinity_key("10.0.0.1", "", {"messages": orjson.dumps(messages), **tools, **inputs})


def test_blocks_are_chained_hashes_of_256_bytes():
    content = bytes(range(256)) * 3 + b"tail"
    blocks, previous = [], 0
    for index in range(3):
        digest = xxh64(seed=previous)
        digest.update(content[256 * index : 256 * index + 256])
        previous = digest.intdigest()
        blocks.append(previous)
    assert prompt_blocks(content) == tuple(blocks)
    assert len(set(blocks)) == 3  # although the blocks have the same content


@pytest.mark.parametrize(("size", "count"), [(0, 0), (255, 0), (256, 1), (511, 1), (16_384, 64), (100_000, 64)])
def test_only_complete_blocks_up_to_16_kb_are_hashed(size, count):
    assert len(prompt_blocks(b"x" * size)) == count


def test_a_difference_changes_its_block_and_all_later_ones():
    content = bytearray(b"x" * 2048)
    before = prompt_blocks(bytes(content))
    content[700] = 0
    after = prompt_blocks(bytes(content))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * 2 + [False] * 6


@pytest.mark.parametrize("system", [SYSTEM, LONG_SYSTEM])
def test_the_key_of_a_conversation_is_a_prefix_of_its_continuation(system):
    first = [system, user("Hello, " * 100)]
    turn1, turn2 = chat(*first), chat(*first, assistant("Hi " * 200), user("And now?"))
    assert turn1.blocks
    assert turn2.blocks[: len(turn1.blocks)] == turn1.blocks
    assert turn1.conversation == turn2.conversation != 0


@pytest.mark.parametrize("system", [SYSTEM, LONG_SYSTEM])
def test_conversations_with_the_same_system_prompt_differ(system):
    one, other = chat(system, user("Hello")), chat(system, user("Goodbye"))
    assert one.blocks == other.blocks
    assert one.conversation != other.conversation
    assert one.client == "10.0.0.1"


def test_text_of_a_message_does_not_look_like_the_next_message():
    text = '"}, {"role":"user","content":"x'
    first = [SYSTEM, user(f"{text}y")]
    assert chat(*first).conversation == chat(*first, assistant("ok")).conversation
    assert chat(*first).conversation != chat(SYSTEM, user(f"{text}z")).conversation


def test_tools_are_the_start_of_the_prompt():
    tools = [{"type": "function", "function": {"name": "search", "description": "Searches. " * 50}}]
    plain, one = chat(SYSTEM, user("Hello")), chat(SYSTEM, user("Hello"), tools=tools)
    assert set(plain.blocks).isdisjoint(one.blocks)
    assert one.conversation != plain.conversation
    assert one.blocks == chat(SYSTEM, user("Bye"), tools=tools).blocks


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_files_count_where_they_are_in_the_conversation(kind):
    first = [SYSTEM, user([{"type": kind}, {"type": "text", "text": "What is this? " * 50}])]
    cat = chat(*first, **{kind: [b"cat"]})
    dog = chat(*first, **{kind: [b"dog"]})
    later = chat(*first, assistant("A cat."), user([{"type": kind}]), **{kind: [b"cat", b"dog"]})
    assert cat.blocks[0] == dog.blocks[0]  # of the system prompt
    assert cat.blocks[-1] != dog.blocks[-1]
    assert cat.conversation != dog.conversation
    assert later.blocks[: len(cat.blocks)] == cat.blocks
    assert later.conversation == cat.conversation


def test_arguments_of_a_tool_call_that_look_like_a_file_do_no_harm():
    call = {"type": "function", "function": {"name": "show", "arguments": {"part": {"type": "image"}}}}
    messages = [user([{"type": "image"}]), assistant("") | {"tool_calls": [call]}, user("x" * 300)]
    assert chat(*messages, image=[b"cat"]).blocks != chat(*messages, image=[b"dog"]).blocks


@pytest.mark.parametrize(
    "inputs", [{"prompt": "Once upon a time " * 50}, {"text_input": "x" * 999}, {"token_ids": b"\1\0\0\0" * 99}]
)
def test_prompts_without_messages_have_blocks_too(inputs):
    key = affinity_key("", "", inputs | {"sampling_parameters": b"{}"})
    [value] = inputs.values()
    assert key.blocks == prompt_blocks(value.encode() if isinstance(value, str) else value)
    assert len(key.blocks) >= 1
    assert key.conversation


def test_other_inputs_have_no_blocks():
    key = affinity_key("10.0.0.1", "", {"text": [b"x" * 1000]})
    assert (key.client, key.blocks, key.conversation) == ("10.0.0.1", (), 0)


def test_a_prompt_with_a_cache_key_is_not_hashed():
    key = affinity_key("10.0.0.1", "session", {"messages": orjson.dumps([user("x" * 1000)])})
    assert (key.cache_key, key.blocks, key.conversation) == ("session", (), 0)
