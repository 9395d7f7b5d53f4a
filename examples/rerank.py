"""Search: embeddings find the three best candidates, and the reranker picks the best two of them."""

import os

import requests
from openai import OpenAI

BASE_URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:10100/v1")
client = OpenAI(base_url=BASE_URL, api_key="unused")

DOCUMENTS = [
    "Rust is a systems programming language with a focus on memory safety.",
    "Rust forms when iron reacts with oxygen and water.",
    "The borrow checker rejects programs with data races at compile time.",
    "Apples are rich in fiber and vitamin C.",
    "A stainless steel knife does not corrode easily.",
]
QUERY = "How does Rust prevent memory bugs?"

vectors = [item.embedding for item in client.embeddings.create(model="embedding", input=[QUERY, *DOCUMENTS]).data]
scores = [sum(a * b for a, b in zip(vectors[0], vector, strict=True)) for vector in vectors[1:]]
candidates = sorted(range(len(DOCUMENTS)), key=lambda index: -scores[index])[:3]

body = {"query": QUERY, "documents": [DOCUMENTS[index] for index in candidates], "top_n": 2}
response = requests.post(f"{BASE_URL}/rerank", json=body, timeout=60)
response.raise_for_status()
for result in response.json()["results"]:
    print(f"{result['relevance_score']:.3f}  {result['document']}")
