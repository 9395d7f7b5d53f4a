#!/usr/bin/env bash
# Usage: curl.sh PHOTO PAGE
# PHOTO is an image of an object in front of a background, PAGE an image of a printed page.
# Writes speech.mp3 and cut-out.png to the current folder.
set -euo pipefail
api=${OPENAI_BASE_URL:-http://127.0.0.1:10100/v1}
json='Content-Type: application/json'

# Embeddings
curl -sSf "$api/embeddings" -H "$json" -d '{"input": ["Hello world", "How are you?"], "dimensions": 4}'
echo

# Rerank
curl -sSf "$api/rerank" -H "$json" \
  -d '{"query": "What is Rust?", "documents": ["Apples are fruit.", "Rust is a programming language."]}'
echo

# Speech, and the transcription of that speech as subtitles
curl -sSf "$api/audio/speech" -H "$json" \
  -d '{"input": "Hello from your own machine.", "voice": "alloy"}' -o speech.mp3
curl -sSf "$api/audio/transcriptions" -F file=@speech.mp3 -F response_format=srt

# Background removal
curl -sSf "$api/images/remove_background" -F "image=@$1" -o cut-out.png

# OCR. The request body is in a file, because a large image would exceed the maximum length of a command line.
body=$(mktemp)
trap 'rm -f "$body"' EXIT
printf '{"model": "ocr", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%s"}}]}]}' \
  "$(base64 -w 0 "$2")" > "$body"
curl -sSf "$api/chat/completions" -H "$json" -d "@$body"
echo
