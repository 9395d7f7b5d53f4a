"""Speech and transcription by the starter models, at length: words, languages, long files, bad ones among good ones."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import jiwer

from tests.support.recordings import librivox
from tests.support.speech import (
    CLIPS,
    SENTENCES,
    TWO_CITIES,
    check_bad_files_among_good_ones,
    check_words,
    long_speech,
    post,
    transcribed,
    words,
)


def test_what_is_said_is_heard(stack):
    check_words(stack, SENTENCES)


def test_the_language_is_found(client):
    """Of most clips of at least eight of the nine languages."""
    found = {}
    for path in CLIPS:
        language = transcribed(client, path, response_format="verbose_json").language
        found.setdefault(path.parent.name, []).append(language == path.parent.name)
    assert len(found) == 9
    assert sum(sum(right) >= 2 for right in found.values()) >= 8


def test_a_long_file_does_not_hold_up_a_short_one(stack, client):
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(post, stack, long_speech(5))
        time.sleep(1)
        assert transcribed(client, next(iter(librivox()))).text
        assert not long.done()
        assert len(words(long.result().json()["text"]).split()) > 500


def test_windows_decoded_together_give_the_same_words_and_times_that_follow(stack):
    """Alone on the machine the file's windows go together; the text is the one that is known."""
    fields = {"response_format": "verbose_json", "language": "en", "timestamp_granularities[]": "word"}
    answer = post(stack, long_speech(4), **fields).json()
    once = words(post(stack, TWO_CITIES.read_bytes()).json()["text"])
    assert jiwer.wer(" ".join([once] * 4), words(answer["text"])) <= 0.05
    for pieces in (answer["segments"], answer["words"]):
        for one, other in itertools.pairwise(pieces):
            assert one["start"] <= one["end"] <= other["start"] + 0.02
    assert len(answer["segments"]) >= 12


def test_bad_files_among_good_ones(stack, client):
    check_bad_files_among_good_ones(stack, client, 20)
