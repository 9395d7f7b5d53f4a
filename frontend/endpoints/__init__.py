"""One file per resource of the API. A blueprint is served with and without `/v1`, unless it has its own prefix."""

from frontend.endpoints.audio import blueprint as audio
from frontend.endpoints.chat import blueprint as chat
from frontend.endpoints.embeddings import blueprint as embeddings
from frontend.endpoints.health import blueprint as health
from frontend.endpoints.models import blueprint as models
from frontend.endpoints.rerank import blueprint as rerank
from frontend.endpoints.rerank import v2 as rerank_v2
from frontend.endpoints.shutdown import blueprint as shutdown

BLUEPRINTS = (chat, embeddings, rerank, rerank_v2, audio, models, health, shutdown)
