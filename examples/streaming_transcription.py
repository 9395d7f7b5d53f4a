"""Prints the transcript of an audio file while it is being transcribed.

Usage: streaming_transcription.py FILE
"""

import os
import sys
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:10100/v1"), api_key="unused")

with Path(sys.argv[1]).open("rb") as file:
    stream = client.audio.transcriptions.create(model="whisper-1", file=file, stream=True)
    for event in stream:
        if event.type == "transcript.text.delta":
            print(event.delta, end="", flush=True)
        elif event.type == "transcript.text.done":
            print(f"\n{event.usage.seconds} seconds of audio")
