"""Text to speech and back: writes speech.mp3, then prints a transcript of the file."""

import os
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:10100/v1"), api_key="unused")
path = Path("speech.mp3")

with client.audio.speech.with_streaming_response.create(
    model="tts-1", voice="alloy", input="The quick brown fox jumps over the lazy dog.", response_format="mp3"
) as speech:
    speech.stream_to_file(path)
print(f"{path}: {path.stat().st_size} bytes")

with path.open("rb") as file:
    transcript = client.audio.transcriptions.create(model="whisper-1", file=file, language="en")
print(transcript.text)
