"""The commands that use models, with a server whose responses are scripted."""

import json
import os
import threading

import pytest
from click.testing import CliRunner

from tests.support.fake_api import MODELS, PNG, chunks, event, running_fake_api
from trident.cli import main


@pytest.fixture
def api(monkeypatch, tmp_path):
    with running_fake_api() as server:
        monkeypatch.setenv("TRIDENT_URL", server.url)
        monkeypatch.setenv("TRIDENT_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("TRIDENT_API_KEY", raising=False)
        monkeypatch.chdir(tmp_path)
        yield server


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(main, arguments, input=stdin)
    assert result.exit_code == code, result.output
    return result


class TestRun:
    def test_prompt_is_answered(self, api):
        assert run("run", "talker", "Say", "hello").stdout == "Hello there\n"
        body = api.last("/v1/chat/completions").json()
        assert body["model"] == MODELS["chat"]
        assert body["messages"] == [{"role": "user", "content": "Say hello"}]
        assert body["stream_options"] == {"include_usage": True}

    def test_standard_input_is_added_to_the_prompt(self, api):
        run("run", "talker", "Summarize", stdin="a long text\n")
        assert api.last("/v1/chat/completions").json()["messages"][0]["content"] == "Summarize\n\na long text"

    def test_options_become_fields_of_the_request(self, api, tmp_path):
        (tmp_path / "schema.json").write_text('{"type": "object"}', encoding="utf-8")
        options = ["--system", "Be kind", "--format", "schema.json", "--think=high", "--temperature", "0"]
        run("run", "talker", "hi", *options, "--seed", "7", "--max-tokens", "9")
        body = api.last("/v1/chat/completions").json()
        assert body["messages"][0] == {"role": "system", "content": "Be kind"}
        assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
        assert (body["enable_thinking"], body["reasoning_effort"]) == (True, "high")
        assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 7, 9)

    def test_format_json(self, api):
        run("run", "talker", "hi", "--format", "json")
        assert api.last("/v1/chat/completions").json()["response_format"] == {"type": "json_object"}

    def test_think_without_a_value_turns_reasoning_on(self, api):
        for arguments in (
            ["talker", "--think", "why?"],
            ["--think", "talker", "why?"],
            ["talker", "--think=high", "why?"],
        ):
            run("run", *arguments)
            body = api.last("/v1/chat/completions").json()
            assert (body["enable_thinking"], body["messages"][0]["content"]) == (True, "why?")
        run("run", "talker", "hi", "--think=false")
        assert api.last("/v1/chat/completions").json()["enable_thinking"] is False

    def test_reasoning_is_shown_or_hidden(self, api):
        api.responses["/v1/chat/completions"] = lambda _: chunks({"reasoning_content": "hmm"}, {"content": "yes"})
        result = run("run", "talker", "hi")
        assert (result.stdout, result.stderr) == ("yes\n", "Thinking …\nhmm\n… done thinking.\n\n")
        result = run("run", "talker", "hi", "--hidethinking")
        assert (result.stdout, result.stderr) == ("yes\n", "")

    def test_files_in_the_prompt_are_attached(self, api, tmp_path):
        (tmp_path / "my photo.png").write_bytes(PNG)
        run("run", "talker", "What is in './my photo.png' and in missing.png?", stdin="and in my\\ photo.png")
        text, image, piped = api.last("/v1/chat/completions").json()["messages"][0]["content"]
        assert text == {"type": "text", "text": "What is in  and in missing.png?"}
        assert piped == {"type": "text", "text": "and in my\\ photo.png"}
        assert image["image_url"]["url"].startswith("data:image/png;base64,")

    def test_no_color_turns_colors_off(self, api, monkeypatch):
        api.responses["/v1/chat/completions"] = lambda _: chunks({"reasoning_content": "hmm"}, {"content": "yes"})
        runner = CliRunner()
        assert "\x1b[2m" in runner.invoke(main, ["run", "talker", "hi"], color=True).stderr
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in runner.invoke(main, ["run", "talker", "hi"], color=True).stderr

    def test_whole_response_as_json(self, api):
        found = json.loads(run("run", "talker", "hi", "--json").stdout)
        assert found["choices"][0]["message"]["content"] == "Hello there"

    def test_verbose_shows_times_on_standard_error(self, api):
        result = run("run", "talker", "hi", "--verbose")
        assert result.stdout == "Hello there\n"
        for word in ("total duration", "time to first token", "prompt tokens:        3", "response tokens:      3"):
            assert word in result.stderr

    def test_model_of_another_task_is_rejected_with_the_command_for_it(self, api):
        result = run("run", "listener", "hi", code=2)
        assert "vendor/listener is a model for transcription; use: trident transcribe" in result.stderr

    def test_unknown_model_at_a_named_server_is_an_error(self, api):
        assert f"{api.url} has no model 'nobody'" in run("run", "nobody", "hi", code=1).stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "Missing argument 'MODEL'"),
            (["talker"], "The prompt is empty"),
            (["talker", "hi", "-i", "x"], "-i requires -m"),
            (["talker", "hi", "-o", "x"], "-o requires -m"),
            (["talker", "hi", "-m", "x"], "Name the model either as MODEL or with -m"),
            (["-m", "x"], "Missing option '-i'"),
            (["talker", "hi", "--think=never"], "'never' is not one of 'true', 'false', 'low', 'medium', 'high'"),
            (["talker", "hi", "--format", "no.json"], "--format: 'no.json' is neither json nor a file"),
            (["-m", "x", "-i", "y", "--seed", "0"], "--seed does not apply to -m"),
            (["talker", "hi", "--json", "--verbose"], "excludes --verbose"),
        ],
    )
    def test_wrong_arguments(self, api, arguments, message):
        assert message in run("run", *arguments, code=2, stdin="").stderr

    @pytest.mark.parametrize(
        ("line", "path"),
        [
            (["run", "talker", "hi", "--json"], "/v1/chat/completions"),
            (["run", "-m", "talker", "-i", "hi"], "/v1/chat/completions"),
            (["embed", "hi"], "/v1/embeddings"),
            (["rerank", "a", "b"], "/v1/rerank"),
            (["image", "cat", "-o", "cat.png"], "/v1/images/generations"),
        ],
    )
    @pytest.mark.parametrize("body", [b"{}", b"not JSON", b'{"choices": []}', b'{"data": 5, "results": [7]}'])
    def test_response_that_is_not_openais_is_an_error(self, api, line, path, body):
        api.responses[path] = lambda _: (200, body)
        result = run(*line, code=1)
        assert result.stderr.startswith("Error: ")

    def test_servers_without_tasks_and_single_models_are_used(self, api):
        """As other servers with OpenAI's API."""
        rows = [{"id": "own/model", "object": "model"}]
        api.responses["/v1/models"] = lambda request: (
            (200, json.dumps({"data": rows}).encode()) if request.path == "/v1/models" else (404, b"")
        )
        assert run("run", "own/model", "hi").stdout == "Hello there\n"
        assert run("embed", "four").stdout == "[4.0, 0.5]\n"
        assert api.last("/v1/embeddings").json()["model"] == "own/model"

    def test_error_of_the_server_is_shown(self, api):
        api.responses["/v1/chat/completions"] = lambda _: (400, b'{"error": {"message": "Too long"}}')
        assert run("run", "talker", "hi", code=1).stderr == "Error: Too long\n"

    def test_error_within_a_stream_is_shown_after_the_text(self, api):
        failed = event({"error": {"message": "The engine died"}})
        api.responses["/v1/chat/completions"] = lambda _: iter(
            [event({"choices": [{"index": 0, "delta": {"content": "Hel"}}]}), failed]
        )
        result = run("run", "talker", "hi", code=1)
        assert (result.stdout, result.stderr) == ("Hel\n", "Error: The engine died\n")

    def test_stream_that_ends_early_is_an_error(self, api):
        api.responses["/v1/chat/completions"] = lambda _: chunks({"content": "Hel"}, done=False)
        assert "ended the response early" in run("run", "talker", "hi", code=1).stderr

    def test_key_is_sent_and_named_when_it_is_missing(self, api):
        run("run", "talker", "hi", "--key", "tr-1")
        assert api.last("/v1/chat/completions").headers["authorization"] == "Bearer tr-1"
        api.responses["/v1/models"] = lambda _: (401, b'{"error": {"message": "Missing API key"}}')
        assert "Missing API key; set TRIDENT_API_KEY" in run("run", "talker", "hi", code=1).stderr

    def test_interrupted_command_has_the_exit_code_130(self, api, monkeypatch):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("trident.cli.requests.stream_chat", interrupt)
        assert "Interrupted" in run("run", "talker", "hi", code=130).stderr

    def test_server_that_does_not_respond(self, monkeypatch):
        monkeypatch.setenv("TRIDENT_URL", "http://127.0.0.1:9")
        assert "http://127.0.0.1:9 does not respond: " in run("run", "talker", "hi", code=1).stderr

    @pytest.mark.parametrize("url", ["ftp://host", "host:10100"])
    def test_invalid_url(self, monkeypatch, url):
        assert "--url must be http://HOST:PORT" in run("run", "talker", "hi", "--url", url, code=2).stderr


class TestAhaRun:
    def results(self, *arguments, stdin=None):
        """Return the lines after the times."""
        lines = run("run", "-m", *arguments, stdin=stdin).stdout.splitlines()
        assert lines[0].startswith("Time elapsed in load model is: ")
        assert lines[1].startswith("Time elapsed in generate is: ")
        return lines[2:]

    def test_chat(self, api):
        assert self.results("talker", "-i", "two words are one input") == ["Result: Hello there"]
        message = api.last("/v1/chat/completions").json()["messages"][0]
        assert message["content"] == "two words are one input"

    def test_text_file(self, api, tmp_path):
        (tmp_path / "input.txt").write_text("from a file\n", encoding="utf-8")
        self.results("talker", "-i", "file://./input.txt")
        assert api.last("/v1/chat/completions").json()["messages"][0]["content"] == "from a file"

    @pytest.mark.parametrize("image", ["image.png", "file://./image.png", "https://example.com/image"])
    def test_prompt_and_image(self, api, tmp_path, image):
        (tmp_path / "image.png").write_bytes(PNG)
        self.results("talker", "-i", "Describe", "-i", image)
        text, part = api.last("/v1/chat/completions").json()["messages"][0]["content"]
        assert text["text"] == "Describe"
        assert part["image_url"]["url"].startswith("https://" if image.startswith("https") else "data:image/png")

    def test_image_only(self, api, tmp_path):
        (tmp_path / "image.png").write_bytes(PNG)
        self.results("talker", "-i", "image.png")
        (part,) = api.last("/v1/chat/completions").json()["messages"][0]["content"]
        assert part["type"] == "image_url"

    def test_video_is_rejected(self, api):
        assert "videos are not supported" in run("run", "-m", "talker", "-i", "a.mp4", code=1).stderr

    def test_transcription_with_a_prompt(self, api, tmp_path):
        (tmp_path / "audio.wav").write_bytes(b"RIFF")
        assert self.results("listener", "-i", "请转写这段音频", "-i", "audio.wav") == ["Result: words of audio.wav"]
        assert api.last("/v1/audio/transcriptions").form()["prompt"] == "请转写这段音频"

    def test_speech_with_and_without_a_reference(self, api, tmp_path):
        assert self.results("speaker", "-i", "hello", "-o", "out.wav") == ["Output saved to: out.wav"]
        assert (tmp_path / "out.wav").read_bytes() == b"RIFFaudio"
        (tmp_path / "voice.wav").write_bytes(b"RIFF")
        self.results("speaker", "-i", "hello", "-i", "voice.wav", "-i", "its words", "-o", "out.wav")
        body = api.last("/v1/audio/speech").json()
        assert body["reference_text"] == "its words"
        assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "input_audio"]
        assert (tmp_path / "out.wav").read_bytes() == b"RIFF"

    def test_names_of_output_files(self, api, tmp_path):
        for name in ("a.png", "b.png"):
            (tmp_path / name).write_bytes(PNG)
        (first,) = self.results("cutter", "-i", "a.png")
        assert first.startswith("Output saved to: cutter_")
        assert first.endswith(".png")
        self.results("cutter", "-i", "a.png", "-i", "b.png", "-o", "x.png", "-o", "y.webp")
        kinds = [r.form()["output_format"] for r in api.requests if r.path == "/v1/images/remove_background"]
        assert kinds[-2:] == ["png", "webp"]
        two = self.results("cutter", "-i", "a.png", "-i", "b.png")
        assert [line[-6:] for line in two] == ["_0.png", "_1.png"]

    def test_embedding(self, api):
        assert self.results("embedder", "-i", "four") == ["Result: [4.0, 0.5]"]

    def test_rerank_with_separators_and_with_a_file(self, api, tmp_path):
        (line,) = self.results("ranker", "-i", "query", "-i", "a|||b")
        assert [row["document"] for row in json.loads(line.removeprefix("Result: "))] == ["a", "b"]
        (tmp_path / "documents.txt").write_text("c\n\nd\n", encoding="utf-8")
        self.results("ranker", "-i", "query", "-i", "file://./documents.txt")
        assert api.last("/v1/rerank").json()["documents"] == ["c", "d"]

    def test_image_generation(self, api, tmp_path):
        self.results("painter", "-i", "a lighthouse", "-o", "out.png")
        assert (tmp_path / "out.png").read_bytes() == b"image"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["listener", "-i", "only a prompt"], "Name one audio file with -i"),
            (["talker", "-i", "a", "-i", "b", "-o", "x", "-o", "y"], "There are more outputs (-o) than results"),
            (["speaker", "-i", "a", "-o", "x.png"], "-o: the output must end with one of .mp3"),
            (["ranker", "-i", "only a query"], "The inputs of a reranker are"),
            (["speaker", "-i", "text", "-i", "words"], "The inputs of a speech model are"),
        ],
    )
    def test_missing_inputs(self, api, arguments, message):
        assert message in run("run", "-m", *arguments, code=2).stderr


class TestVectors:
    def test_embed_texts_and_lines(self, api):
        assert run("embed", "one", "three").stdout == "[3.0, 0.5]\n[5.0, 0.5]\n"
        lines = run("embed", "--json", stdin="one\n\nthree\n").stdout.splitlines()
        assert [json.loads(line)["text"] for line in lines] == ["one", "three"]
        assert "Missing argument 'TEXT'" in run("embed", stdin="", code=2).stderr

    def test_many_texts_are_sent_in_batches(self, api):
        assert len(run("embed", stdin="x\n" * 70).stdout.splitlines()) == 70
        assert [len(r.json()["input"]) for r in api.requests if r.path == "/v1/embeddings"] == [32, 32, 6]

    def test_rerank(self, api):
        assert run("rerank", "query", "a", "b").stdout == "0.5000  a\n0.3333  b\n"
        assert len(json.loads(run("rerank", "query", "--top", "1", "--json", stdin="a\nb\n").stdout)) == 1


class TestMedia:
    def test_transcribe_files_and_a_folder(self, api, tmp_path):
        (tmp_path / "calls").mkdir()
        for name in ("calls/a.wav", "calls/b.mp3", "calls/notes.txt", "c.flac"):
            (tmp_path / name).write_bytes(b"sound")
        assert run("transcribe", "c.flac").stdout == "words of c.flac\n"
        result = run("transcribe", "calls", "c.flac", "--language", "de")
        assert result.stdout == "calls/a.wav:\nwords of a.wav\ncalls/b.mp3:\nwords of b.mp3\nc.flac:\nwords of c.flac\n"
        assert "2/3 calls/b.mp3" in result.stderr
        assert api.last("/v1/audio/transcriptions").form()["language"] == "de"
        assert run("transcribe", "calls", "--format", "srt", "-o", "out").stdout == "out/a.srt\nout/b.srt\n"
        assert (tmp_path / "out" / "a.srt").read_text(encoding="utf-8") == "words of a.wav\n"
        api.responses["/v1/audio/transcriptions"] = lambda _: (200, b'{"text": "words", "language": "en"}')
        line = run("transcribe", "c.flac", "--format", "verbose_json", "--json").stdout
        assert json.loads(line) == {"file": "c.flac", "text": "words", "language": "en"}
        api.responses["/v1/audio/transcriptions"] = lambda _: (200, b"words of b.mp3")
        rows = [json.loads(line) for line in run("transcribe", "calls", "--json").stdout.splitlines()]
        assert rows[1] == {"file": "calls/b.mp3", "text": "words of b.mp3"}

    def test_file_that_fails_does_not_stop_the_others(self, api, tmp_path):
        for name in ("a.wav", "b.wav"):
            (tmp_path / name).write_bytes(b"sound")
        answers = iter([(400, b'{"error": {"message": "no audio"}}'), (200, b"words")])
        api.responses["/v1/audio/transcriptions"] = lambda _: next(answers)
        result = run("transcribe", "a.wav", "b.wav", code=1)
        assert result.stdout == "b.wav:\nwords\n"
        assert "a.wav: no audio" in result.stderr
        assert "1 of 2 files could not be transcribed" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["transcribe", "missing.wav"], "'missing.wav' does not exist"),
            (["transcribe", "empty"], "'empty' has no audio files"),
            (["cutout", "a/x.png", "b/x.jpg", "-o", "out"], "would both be written as 'x'"),
            (["cutout", "a/x.png", "-o", "a"], "'a/x.png' would be overwritten"),
            (["speak", "hi", "-o", "speech.txt"], "must end with one of mp3, opus"),
            (["speak", " ", "-o", "speech.mp3"], "Missing argument 'TEXT'"),
            (["speak", "hi", "-o", "a.mp3", "--reference", "v.wav"], "--reference writes a WAV file"),
            (["image", "cat", "-o", "cat.bmp"], "must end with one of .png"),
        ],
    )
    def test_wrong_arguments(self, api, tmp_path, arguments, message):
        for name in ("empty", "a", "b"):
            (tmp_path / name).mkdir()
        for name in ("a/x.png", "b/x.jpg"):
            (tmp_path / name).write_bytes(PNG)
        assert message in run(*arguments, code=2).stderr

    def test_speak(self, api, tmp_path):
        options = ["--voice", "heart", "--speed", "1.5"]
        assert run("speak", "Good morning.", "-o", "new/speech.mp3", *options).stdout == "new/speech.mp3\n"
        assert (tmp_path / "new" / "speech.mp3").read_bytes() == b"RIFFaudio"
        body = api.last("/v1/audio/speech").json()
        assert (body["response_format"], body["voice"], body["speed"]) == ("mp3", "heart", 1.5)
        assert run("speak", "-o", "-", stdin="from a pipe").stdout_bytes == b"RIFFaudio"
        assert api.last("/v1/audio/speech").json()["input"] == "from a pipe"

    def test_cutout(self, api, tmp_path):
        (tmp_path / "photo.jpg").write_bytes(b"jpeg")
        assert run("cutout", "photo.jpg", "-o", "out", "--refine").stdout == "out/photo.png\n"
        assert (tmp_path / "out" / "photo.png").read_bytes() == PNG
        assert api.last("/v1/images/remove_background").form()["refine"] == "true"

    def test_image(self, api, tmp_path):
        assert run("image", "a cat", "-o", "cat.png").stdout == "cat.png\n"
        options = ["-n", "2", "--size", "64x64", "--steps", "3", "--seed", "1", "--negative-prompt", "dogs"]
        assert run("image", "a cat", "-o", "cat.jpg", *options).stdout == "cat_0.jpg\ncat_1.jpg\n"
        body = api.last("/v1/images/generations").json()
        assert (body["output_format"], body["size"], body["num_inference_steps"]) == ("jpeg", "64x64", 3)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_folder_that_cannot_be_written(self, api, tmp_path):
        tmp_path.chmod(0o500)
        assert "cannot be written: Permission denied" in run("image", "a cat", "-o", "cat.png", code=1).stderr


class TestBench:
    def test_results_as_a_table_json_and_csv(self, api):
        load = ["bench", "serve", "--concurrency", "2", "--num-requests", "6", "--output-tokens", "3"]
        found = json.loads(run(*load, "--json").stdout)
        assert (found["requests"], found["failed"], found["errors"]) == (6, 0, {})
        assert found["output_tokens_mean"] == 3
        assert 0 < found["ttft_p50_ms"] <= found["ttft_p90_ms"] <= found["ttft_p99_ms"]
        header, row = run(*load, "--format", "csv").stdout.splitlines()
        assert len(header.split(",")) == len(row.split(","))
        assert "output tokens per s" in run(*load).stdout
        body = api.last("/v1/chat/completions").json()
        assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (3, True, True)

    def test_concurrency_is_reached_and_not_exceeded(self, api):
        lock, running, highest = threading.Lock(), 0, 0

        def slow(request):
            nonlocal running, highest
            if not request.json().get("stream"):
                return 200, b'{"usage": {"prompt_tokens": 9}}'
            with lock:
                running += 1
                highest = max(highest, running)

            def parts():
                nonlocal running
                barrier.wait(5)
                with lock:
                    running -= 1
                yield from chunks({"content": "a"}, {"content": "b"})

            return parts()

        barrier = threading.Barrier(4)
        api.responses["/v1/chat/completions"] = slow
        run("bench", "serve", "--concurrency", "4", "--num-requests", "8", "--warmup", "0")
        assert highest == 4

    def test_prompts_have_the_wanted_length(self, api):
        run("bench", "serve", "--num-requests", "3", "--input-tokens", "200", "--warmup", "0")
        body = api.last("/v1/chat/completions").json()
        assert len(json.dumps(body["messages"]).split()) == pytest.approx(200, abs=2)

    def test_failed_requests_are_counted_and_the_exit_code_is_1(self, api):
        def fail_streams(request):
            if request.json().get("stream"):
                return 429, b'{"error": {"message": "Too many requests"}}'
            return 200, b'{"usage": {"prompt_tokens": 9}}'

        api.responses["/v1/chat/completions"] = fail_streams
        result = run("bench", "serve", "--num-requests", "5", "--warmup", "0", "--json", code=1)
        assert json.loads(result.stdout)["errors"] == {"Too many requests": 5}
        assert "5 of 5 requests failed" in result.stderr

    def test_unexpected_responses_are_errors_and_no_hang(self, api):
        def odd(request):
            if not request.json().get("stream"):
                return 200, b'{"usage": {"prompt_tokens": 9}}'
            return iter([event({"choices": [{"index": 0, "text": "x"}]}), b"data: [DONE]\n\n"])

        api.responses["/v1/chat/completions"] = odd
        result = run("bench", "serve", "--num-requests", "2", "--warmup", "0", "--json", code=1)
        assert json.loads(result.stdout)["errors"] == {"The response is empty": 2}

    def test_file_is_sent_to_the_models_of_its_task(self, api, tmp_path):
        (tmp_path / "clip.wav").write_bytes(b"RIFF")
        (tmp_path / "cat.png").write_bytes(b"PNG")
        load = ["bench", "serve", "--num-requests", "3", "--concurrency", "1", "--warmup", "0", "--json"]
        found = json.loads(run(*load, "--file", "clip.wav").stdout)
        assert (found["requests"], found["ttft_p50_ms"]) == (3, None)
        assert found["latency_p50_ms"] > 0
        assert api.last("/v1/audio/transcriptions").form()["response_format"] == "text"
        run(*load, "--file", "cat.png")
        assert api.last("/v1/images/remove_background")
        (tmp_path / "notes.xyz").write_bytes(b"")
        assert "neither audio nor a picture" in run(*load, "--file", "notes.xyz", code=2).stderr

    def test_no_server_is_started(self, monkeypatch, tmp_path):
        monkeypatch.delenv("TRIDENT_URL", raising=False)
        monkeypatch.setenv("TRIDENT_CACHE", str(tmp_path))
        assert "Trident is not running" in run("bench", "serve", code=1).stderr

    @pytest.mark.parametrize("name", ["plot.abc", "missing/plot.png"])
    def test_plot_that_cannot_be_written_is_an_error_before_the_load(self, api, name):
        assert "--plot: '" in run("bench", "serve", "--plot", name, code=2).stderr
        assert not api.requests

    def test_plot(self, api, tmp_path):
        run("bench", "serve", "--num-requests", "4", "--rate", "200", "--plot", "plot.png")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
