"""Thorough tests of speech and transcription by the starter models: words, languages, long files, invalid files."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import jiwer

from contract.languages import LANGUAGES
from tests.support.recordings import librivox
from tests.support.speech import (
    CLIPS,
    SENTENCES,
    TWO_CITIES,
    check_bad_files_among_good_ones,
    check_words,
    normalize_words,
    post_audio,
    repeat_recording,
    transcribe,
)


def test_speech_has_the_words_of_the_input(stack):
    check_words(stack, SENTENCES)


def test_language_is_detected(client):
    """In at least eight of nine languages, the language of at least two of the three clips is detected correctly."""
    found = {}
    for path in CLIPS:
        language = transcribe(client, path, response_format="verbose_json").language
        found.setdefault(path.parent.name, []).append(language == LANGUAGES[path.parent.name])
    assert len(found) == 9
    assert sum(sum(right) >= 2 for right in found.values()) >= 8


def test_short_file_is_finished_before_a_long_one_that_started_earlier(stack, client):
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(post_audio, stack, repeat_recording(5))
        time.sleep(1)
        assert transcribe(client, next(iter(librivox()))).text
        assert not long.done()
        assert len(normalize_words(long.result().json()["text"]).split()) > 500


def test_windows_decoded_together_have_the_same_words_and_ordered_times(stack):
    """If the model has no other request, the engine decodes several windows (up to 30 seconds each) of a file together.

    The file has four copies of a recording, so its transcript must have the words of the recording four times.
    """
    fields = {"response_format": "verbose_json", "language": "en", "timestamp_granularities[]": "word"}
    transcript = post_audio(stack, repeat_recording(4), **fields).json()
    once = normalize_words(post_audio(stack, TWO_CITIES.read_bytes()).json()["text"])
    assert jiwer.wer(" ".join([once] * 4), normalize_words(transcript["text"])) <= 0.05
    for entries in (transcript["segments"], transcript["words"]):
        for one, other in itertools.pairwise(entries):
            assert one["start"] <= one["end"] <= other["start"] + 0.02
    assert len(transcript["segments"]) >= 12


def test_invalid_files_do_not_affect_valid_ones(stack, client):
    check_bad_files_among_good_ones(stack, client, 20)
