"""The sender: output is rate-limited, the last output is always sent, and cancelled answers are dropped.

An answer is the generated text of one request.
"""

import threading
import time

import pytest

from backends.generation.output.sender import Sender


class Reply:
    def __init__(self):
        self.cancelled = False

    def is_cancelled(self):
        return self.cancelled


class FakeAnswer:
    def __init__(self, streamed=True):
        self.reply, self.streamed, self.finished, self.closed = Reply(), streamed, False, False
        self.sent_at = []
        self.request_id = "r"
        self.done = threading.Event()


@pytest.fixture
def abandoned():
    return []


@pytest.fixture
def sender(abandoned):
    def send(answer):
        if getattr(answer, "broken", False):
            raise RuntimeError("the caller's pipe broke")
        answer.sent_at.append(time.monotonic())
        if answer.finished:
            answer.done.set()
        return answer.finished

    sender = Sender(send, abandoned.append, lambda: None)
    sender.start()
    yield sender
    sender.stop()


def watched(sender, **kind):
    answer = FakeAnswer(**kind)
    sender.watch(answer)
    return answer


def finish(sender, answer):
    answer.finished = True
    sender.notify([answer])
    assert answer.done.wait(2)


def test_output_that_arrives_between_two_responses_is_sent_together(sender):
    answer = watched(sender)
    for _ in range(200):
        sender.notify([answer])
        time.sleep(0.0005)
    finish(sender, answer)
    assert 2 <= len(answer.sent_at) < 50


def test_an_answer_that_is_not_streamed_is_sent_once_at_the_end(sender):
    answer = watched(sender, streamed=False)
    for _ in range(20):
        sender.notify([answer])
        time.sleep(0.002)
    assert not answer.sent_at
    finish(sender, answer)
    assert len(answer.sent_at) == 1


def test_finished_answers_are_removed(sender):
    answers = [watched(sender) for _ in range(10)]
    for answer in answers:
        finish(sender, answer)
    deadline = time.monotonic() + 2
    while len(sender) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(sender) == 0
    assert all(answer.closed for answer in answers)


def test_a_cancelled_answer_is_dropped_even_without_new_output(sender, abandoned):
    answer = watched(sender)
    answer.reply.cancelled = True
    deadline = time.monotonic() + 2
    while not abandoned and time.monotonic() < deadline:
        time.sleep(0.01)
    assert abandoned == [answer]
    assert answer.closed
    assert len(sender) == 0


def test_a_failed_send_does_not_affect_other_answers(sender, abandoned):
    broken, healthy = watched(sender), watched(sender)
    broken.broken = True
    sender.notify([broken, healthy])
    finish(sender, healthy)
    assert broken.closed
    assert abandoned == [broken]


def test_stop_sends_the_output_that_is_ready(sender):
    answer = watched(sender, streamed=False)
    answer.finished = True
    sender.notify([answer])
    sender.stop()
    assert answer.done.is_set()
