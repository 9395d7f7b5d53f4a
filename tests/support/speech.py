"""Helpers for the speech and transcription tests. They synthesize and transcribe speech, and compare words.

Importing this module downloads the recordings if the cache does not have them.
"""

import base64
import io
import re
import wave
from concurrent.futures import ThreadPoolExecutor

import jiwer
import numpy as np
import requests

from tests.support.live import url
from tests.support.recordings import AUDIOEVAL, MOONSHINE, librivox, package_files

TWO_CITIES = package_files(MOONSHINE) / "two_cities.wav"
CLIPS = sorted(package_files(AUDIOEVAL).glob("*/*.wav"))
_DIGITS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]

SENTENCES = """The old lighthouse stood at the edge of the cliff.
She opened the letter and began to read it slowly.
A cold wind was blowing from the north all day.
The children played in the garden until it was dark.
He bought a loaf of bread and some cheese at the market.
Nobody knew where the old man had come from.
The train to London leaves at seven in the morning.
It takes a long time to learn how to play the piano.
There was a large map of the world on the wall.
The doctor told him to drink more water and to sleep longer.
We walked along the river and talked about the future.
The museum is closed on Mondays but open every other day.
Please leave your shoes at the door before you come in.
The computer on the desk was older than the office itself.
My brother works in a hospital on the other side of town.
The soup was too hot to eat so we waited for a while.
In the summer the days are long and the nights are short.
The book that you gave me last week was very interesting.
A small bird sat on the branch and sang a beautiful song.
They decided to sell the house and move to the country.""".splitlines()


def speak(stack, path="/v1/audio/speech", **body):
    return requests.post(url(stack, path), json={"model": "hibari", "voice": "alloy"} | body, timeout=120)


def transcribe_text(stack, content, **fields):
    fields = {"model": "whisper-base"} | fields
    response = requests.post(url(stack, "/v1/audio/transcriptions"), files={"file": content}, data=fields, timeout=120)
    return response.json()["text"]


def normalize_words(text):
    """Return a text in lower case, with 1 to 10 written as words, and without punctuation except apostrophes."""
    plain = re.sub(r"[^a-z0-9' ]", " ", text.lower()).split()
    return " ".join(_DIGITS[int(w) - 1] if w.isdigit() and 0 < int(w) <= 10 else w for w in plain)


def wav(samples):
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(samples.shape[1] if samples.ndim > 1 else 1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes())
    return content.getvalue()


def post_audio(stack, content, path="/v1/audio/transcriptions", timeout=120, **fields):
    return requests.post(url(stack, path), files={"file": ("a.wav", content)}, data=fields, timeout=timeout)


def repeat_recording(times):
    """Return the 44-second recording of A Tale of Two Cities, repeated `times` times, as a 16 kHz WAV file."""
    samples = np.frombuffer(TWO_CITIES.read_bytes()[44:], np.int16)[::3].astype(np.float32) / 32768
    return wav(np.tile(samples, times))


def reference_audio_url(start):
    """Return five seconds of the recording of A Tale of Two Cities, beginning at second `start`, as a `data:` URL."""
    content = io.BytesIO()
    with wave.open(str(package_files(MOONSHINE) / "two_cities.wav")) as file, wave.open(content, "wb") as part:
        part.setparams(file.getparams())
        file.setpos(start * file.getframerate())
        part.writeframes(file.readframes(5 * file.getframerate()))
    return f"data:audio/wav;base64,{base64.b64encode(content.getvalue()).decode()}"


def clone(stack, address, text="Hello there. How are you?", **body):
    parts = [{"type": "text", "text": text}, {"type": "audio", "audio_url": {"url": address}}]
    return speak(stack, "/audio/speech", messages=[{"role": "user", "content": parts}], **{"voice": None} | body)


def check_words(stack, sentences):
    """Synthesize the sentences, transcribe the audio, and check that the word error rate is at most 5%."""
    texts = [transcribe_text(stack, speak(stack, input=sentence).content) for sentence in sentences]
    assert jiwer.wer([normalize_words(s) for s in sentences], [normalize_words(t) for t in texts]) <= 0.05


def transcribe(client, path, **options):
    with path.open("rb") as file:
        return client.audio.transcriptions.create(model="whisper-base", file=file, **options)


def check_bad_files_among_good_ones(stack, client, count):
    """Send `count` files, eight at a time. Every second file is invalid.

    Check that each invalid file is rejected, and that each valid file has the same text as when it is sent by itself.
    """
    clips = list(librivox())[: max(1, count // 4)]
    expected = [transcribe(client, path).text for path in clips]

    def ask(number):
        if number % 2:
            return post_audio(stack, b"junk" * number * 1000).status_code == 400
        return transcribe(client, clips[number // 2 % len(clips)]).text == expected[number // 2 % len(clips)]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(count)))
