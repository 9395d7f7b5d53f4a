"""Tests the speech backend without a model: sentences, tempo, encoding, voices and synthesis."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest

from backends.common.audio.encoding import FORMATS, Encoder
from backends.common.errors import InvalidRequest
from backends.common.stepwise import IDLE, RoundRobin
from backends.speech.engines import Voices
from backends.speech.normalization import spoken
from backends.speech.sentences import cut, split_sentences
from backends.speech.synthesis import SpeechSynthesis, change_tempo
from contract.options import SpeechOptions

RATE = 24_000


def tone(seconds):
    return (0.5 * np.sin(np.arange(int(seconds * RATE)) * 2 * np.pi * 440 / RATE)).astype(np.float32)


def decoded(content, form):
    """Return the samples of an encoded file, and its sample rate."""
    if form == "pcm":
        return np.frombuffer(content, np.int16).astype(np.float32) / 32768, RATE
    with av.open(io.BytesIO(content)) as container:
        frames = list(container.decode(audio=0))
    resampler = av.AudioResampler("flt", "mono", frames[0].sample_rate)
    parts = [part.to_ndarray().reshape(-1) for frame in frames for part in resampler.resample(frame)]
    return np.concatenate(parts), frames[0].sample_rate


class TestSentences:
    def test_english_and_chinese_text_is_split_into_sentences(self):
        text = "Dr. Smith came. He left!\n\n你好，世界。今天很好！Bye."
        assert list(split_sentences(text, 100)) == [
            "Dr. Smith came.",
            "He left!",
            "你好，世界。",
            "今天很好！",
            "Bye.",
        ]

    @pytest.mark.parametrize(
        "text", ["word " * 300, "a" * 1000, "a, b; " * 200, "字" * 999, "x" * 250 + " " + "y" * 250]
    )
    def test_pieces_of_a_cut_text_are_short_enough_and_lose_nothing(self, text):
        pieces = list(cut(text, 100))
        assert max(len(piece) for piece in pieces) <= 100
        assert "".join(pieces) == text

    def test_text_is_cut_after_punctuation_if_possible(self):
        assert list(cut("one two, three four five", 20)) == ["one two, ", "three four five"]

    def test_spaces_are_collapsed_and_blank_lines_skipped(self):
        assert list(split_sentences("a" + " " * 500 + "b\n \n", 100)) == ["a b"]

    def test_very_long_numbers_are_split_into_digits(self):
        assert list(split_sentences("1" * 20, 100)) == [" ".join("1" * 20)]

    def test_the_first_sentence_of_a_huge_text_is_ready_within_two_seconds(self):
        started = time.monotonic()
        assert next(split_sentences("Hello there. " * 8000, 100)) == "Hello there."
        assert time.monotonic() - started < 2


class TestTempo:
    @pytest.mark.parametrize("factor", [0.25, 0.4, 0.5, 0.8, 1, 1.5, 2, 4])
    def test_the_length_changes_but_not_the_pitch(self, factor):
        changed = change_tempo(tone(3), RATE, factor)
        assert len(changed) / RATE == pytest.approx(3 / factor, abs=0.05)
        pitch = np.abs(np.fft.rfft(changed)).argmax() * RATE / len(changed)
        assert pitch == pytest.approx(440, abs=3)


class TestEncoder:
    @pytest.mark.parametrize("form", FORMATS)
    def test_a_file_encoded_in_chunks_is_complete(self, form):
        encoder = Encoder(form, RATE)
        pieces = [encoder.encode(part) for part in np.array_split(tone(3), 5)]
        content = b"".join([*pieces, encoder.finish()])
        assert all(pieces) or form == "flac"
        samples, rate = decoded(content, form)
        assert len(samples) / rate == pytest.approx(3, abs=0.1)
        assert np.abs(samples).max() == pytest.approx(0.5, abs=0.15)
        pitch = np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)
        assert pitch == pytest.approx(440, abs=3)

    def test_loud_samples_are_clipped_without_wrapping(self):
        encoder = Encoder("pcm", RATE)
        samples, _ = decoded(encoder.encode(np.array([2, -2], np.float32)) + encoder.finish(), "pcm")
        assert samples == pytest.approx([1, -1], abs=0.001)


ALIASES = {"alloy": "bob", "echo": "gone"}


class TestVoices:
    @pytest.mark.parametrize(("name", "voice"), [(None, "ann"), ("bob", "bob"), ("alloy", "bob")])
    def test_a_voice_is_found_by_name_or_alias_or_is_the_default(self, name, voice):
        assert Voices(["ann", "bob"], "ann", ALIASES).find(name) == voice

    @pytest.mark.parametrize("name", ["carl", "echo", "Ann "])
    def test_an_unknown_voice_is_rejected_with_the_known_names(self, name):
        with pytest.raises(InvalidRequest, match="ann, bob, alloy") as caught:
            Voices(["ann", "bob"], "ann", ALIASES).find(name)
        assert (caught.value.param, caught.value.code) == ("voice", "voice_not_found")


class FakeEngine:
    """A speech engine that speaks a tone instead of text: a tenth of a second per letter at speed 1.

    The engine splits text into sentences at `|`, and fails to convert the sentence `bad` to phonemes.
    """

    rate, hop, speeds = RATE, 240, (0.5, 2.0)

    def __init__(self):
        self.requested_speeds = []

    def voice(self, options, reference):
        return self

    def phonemes(self, text):
        for sentence in text.split("|"):
            if sentence == "bad":
                raise AssertionError
            yield sentence

    def speak(self, phonemes, speed):
        self.requested_speeds.append(speed)
        return tone(len(phonemes) / 10 / speed)


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as made:
        yield made


class TestSynthesis:
    def test_each_sentence_is_a_chunk(self, pool):
        synthesis = SpeechSynthesis(FakeEngine(), "hello|you", SpeechOptions(format="pcm"), None, pool, 2)
        first, second, end = synthesis.chunks()
        assert (len(first), len(second), len(end)) == (RATE, RATE * 3 // 5, 0)
        assert (synthesis.num_input_tokens, synthesis.num_output_tokens) == (8, 80)

    @pytest.mark.parametrize(("speed", "own"), [(0.25, 0.5), (1, 1), (1.5, 1.5), (4, 2)])
    def test_speeds_that_the_model_lacks_are_reached_by_changing_the_tempo(self, pool, speed, own):
        engine = FakeEngine()
        content = b"".join(
            SpeechSynthesis(engine, "hello there", SpeechOptions(speed=speed, format="pcm"), None, pool, 2).chunks()
        )
        assert engine.requested_speeds == [own]
        assert len(content) / 2 / RATE == pytest.approx(1.1 / speed, abs=0.06)

    def test_sentences_are_in_order_and_few_are_synthesized_ahead(self, pool):
        engine = FakeEngine()
        chunks = SpeechSynthesis(
            engine, "a|bb|ccc|dddd|eeeee|ffffff", SpeechOptions(format="pcm"), None, pool, 2
        ).chunks()
        assert len(next(chunks)) == RATE // 5
        assert len(engine.requested_speeds) <= 4
        assert [len(chunk) * 5 // RATE for chunk in chunks] == [2, 3, 4, 5, 6, 0]

    def test_closing_the_stream_stops_synthesis(self, pool):
        engine = FakeEngine()
        chunks = SpeechSynthesis(engine, "|".join("abcdefgh"), SpeechOptions(format="pcm"), None, pool, 2).chunks()
        next(chunks)
        chunks.close()
        spoken = len(engine.requested_speeds)
        time.sleep(0.1)
        assert len(engine.requested_speeds) <= spoken + 1

    @pytest.mark.parametrize("text", ["", "!", "bad", "hello|bad"])
    def test_text_that_cannot_be_spoken_is_rejected(self, pool, text):
        with pytest.raises(InvalidRequest) as caught:
            list(SpeechSynthesis(FakeEngine(), text, SpeechOptions(), None, pool, 2).chunks())
        assert caught.value.param == "input"


class StreamingEngine(FakeEngine):
    """Speaks one text at a time, in parts, as VoxCPM does."""

    speeds = (1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.is_speaking, self.closed = threading.Lock(), 0

    def stream(self, phonemes):
        with self.is_speaking:
            try:
                for letter in phonemes:
                    time.sleep(0.01)
                    yield tone(len(letter) / 10)
            finally:
                self.closed += 1


class TestStreaming:
    """Several requests on one thread, whose speech is generated by another one."""

    def run(self, engine, *requests):
        """Return what each request has sent. A request is a text and a speed."""
        sent = [[] for _ in requests]
        with ThreadPoolExecutor(1) as pool:
            turns = RoundRobin(1)
            for (text, speed), parts in zip(requests, sent, strict=True):
                options = SpeechOptions(speed=speed, format="pcm")
                chunks = SpeechSynthesis(engine, text, options, None, pool, 1).chunks()
                turns.add(Turns(chunks, parts))
            for _ in range(500):
                if not len(turns):
                    break
                time.sleep(0.02)
            assert not len(turns), "a request never ended"
            turns.stop()
        return sent

    def test_parts_are_sent_as_they_are_spoken(self):
        [parts] = self.run(StreamingEngine(), ("hello|you", 1.0))
        assert [len(part) for part in parts if part] == [RATE // 5] * 8

    def test_requests_with_and_without_streaming_do_not_block_each_other(self):
        engine = StreamingEngine()
        engine.speak = lambda phonemes, speed: np.concatenate(list(engine.stream(phonemes)))
        requests = [("hello|there|you", 1.0), ("hello|there", 1.5), ("again|and|again", 1.0), ("bye", 2.0)]
        sent = self.run(engine, *requests)
        lengths = [sum(map(len, parts)) / 2 / RATE for parts in sent]
        assert lengths == pytest.approx([1.3, 1.0 / 1.5, 1.3, 0.15], abs=0.1)

    def test_closing_a_request_ends_its_speech(self):
        engine = StreamingEngine()
        with ThreadPoolExecutor(1) as pool:
            chunks = SpeechSynthesis(engine, "a" * 100, SpeechOptions(format="pcm"), None, pool, 1).chunks()
            assert next(chunk for chunk in chunks if chunk is not IDLE and chunk)
            chunks.close()
        assert engine.closed == 1
        assert not engine.is_speaking.locked()


class Turns:
    """Work that collects what a request yields."""

    def __init__(self, chunks, parts):
        self._chunks, self._parts = chunks, parts

    def is_cancelled(self):
        return False

    def steps(self):
        for chunk in self._chunks:
            if chunk is not IDLE:
                self._parts.append(chunk)
            yield chunk

    def fail(self, error):
        raise error

    def cancel(self):
        raise AssertionError


class TestLanguages:
    @pytest.mark.parametrize(
        "text", ["你好,这是一段测试语音。", "Say 你好 to her", "Привет", "こんにちは", "안녕", "สวัสดี", "αβγ"]
    )
    def test_text_in_a_language_that_the_model_does_not_speak_is_rejected(self, pool, text):
        with pytest.raises(InvalidRequest, match="it speaks English") as caught:
            SpeechSynthesis(FakeEngine(), text, SpeechOptions(), None, pool, 2, ["en"])
        assert (caught.value.param, caught.value.code) == ("input", "unsupported_language")

    @pytest.mark.parametrize("text", ["Hello", "café Zürich", "π is 3.14", "5 µm at 20 °C 🎉", "𝐇𝐞𝐥𝐥𝐨 №1", "x² ≤ ½"])
    def test_latin_letters_and_symbols_are_accepted(self, pool, text):
        SpeechSynthesis(FakeEngine(), text, SpeechOptions(), None, pool, 2, ["en"])

    def test_model_of_several_languages_speaks_them(self, pool):
        for text in ("你好 world", "こんにちは世界"):
            SpeechSynthesis(FakeEngine(), text, SpeechOptions(), None, pool, 2, ["en", "zh", "ja"])
        with pytest.raises(InvalidRequest, match="English, Chinese, Japanese"):
            SpeechSynthesis(FakeEngine(), "안녕", SpeechOptions(), None, pool, 2, ["en", "zh", "ja"])


class TestNormalization:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("5€", "€5"),
            ("20 € and 100$", "€20 and $100"),
            ("5,99 € or €1,5", "€5.99 or €1.5"),
            ("₹500", "500 rupees"),
            ("$1.5M, $7667.47, 1,234,567", "$1.5M, $7667.47, 1,234,567"),
            ("1 000 000 people", "1000000 people"),
            ("1\u202f000 and 1'000 and 1.000.000", "1000 and 1000 and 1000000"),
            ("in 2024 100 people, 416 555 0192", "in 2024 100 people, 416 555 0192"),
            ("4 * 2 = 8", "4 times 2 = 8"),
            ("3 × 4 ÷ 2, 3x4, 10 / 2", "3 times 4 divided by 2, 3 times 4, 10 divided by 2"),
            ("10 − 3 = 7", "10 minus 3 = 7"),
            ("10 - 3 = 7", "10 minus 3 = 7"),
            ("pages 10 - 12, 9-17", "pages 10 - 12, 9-17"),
            ("a/b, and/or, 10/2, 03/04/2026", "a slash b, and/or, 10/2, 03/04/2026"),
            ("192.168.0.1", "192 dot 168 dot 0 dot 1"),
            ("v1.2.3", "v 1 point 2 point 3"),
            ("3.14159, 2.5, e.g. U.S.", "3.14159, 2.5, e.g. U.S."),
            ("jane.doe@example.co.uk", "jane dot doe at example dot C O dot U K"),
            ("www.openai.com.", "W W W dot openai dot com."),
            ("https://a.org/x_y?b=1", "H T T P S a dot org slash x underscore y question mark b equals 1"),
            ("file.txt", "file dot txt"),
            ("# Heading\ntext", "Heading.\ntext"),
            ("C# #5", "C# #5"),
            ("x ≤ 5", "x is less than or equal to 5"),
            ("Buy milk\n* eggs\n* bread", "Buy milk * eggs * bread"),
            ("Options\n- width = 5\n- height = 6", "Options - width = 5 - height = 6"),
            ("My notes - a quick test - and y = 3", "My notes - a quick test - and y = 3"),
            ("Home · About", "Home · About"),
            ("rooms 101 102, chapter 3 100 people", "rooms 101 102, chapter 3 100 people"),
            ("10 000 km and 5 000 $", "10000 km and $5000"),
            ("0x10 and 3x4", "0x10 and 3 times 4"),
            ("31.12.2024 and 3.4.2024", "31 12 2024 and 3/4/2024"),
            ("100 km/h", "100 km/h"),
            ("x = -5", "x = minus 5"),
            ("𝐇𝐢 Ｈｉ", "Hi Hi"),
        ],
    )
    def test_signs_are_written_as_words(self, text, expected):
        assert " ".join(spoken(text).split()) == " ".join(expected.split())

    @pytest.mark.parametrize(
        "word",
        [
            "dichlorodiphenyltrichloroethane",
            "thequickbrownfoxjumpsoverthelazydog",
            "a" * 100,
            "supercalifragilistic" * 2,
        ],
    )
    def test_long_words_are_split_without_loss(self, word):
        pieces = spoken(f"The {word}.").removeprefix("The ").removesuffix(".").split(" ")
        assert "".join(pieces) == word
        assert max(map(len, pieces)) <= 24

    def test_asian_text_is_left_to_its_own_libraries(self):
        assert list(split_sentences("价格是 5€。", 100)) == ["价格是 5€。"]

    @pytest.mark.parametrize(
        "text",
        [
            "1 000 " * 3000,
            "a.b" * 5000,
            "x" * 50_000,
            "#" * 5000,
            "www." * 5000,
            "@a." * 5000,
            "a" + " " * 50_000 + "b",
            "# " * 20_000 + "x",
            "a - " * 20_000,
        ],
    )
    def test_no_text_takes_long(self, text):
        started = time.process_time()
        spoken(text)
        assert time.process_time() - started < 2
