"""One file per resource of the API. A blueprint is served with and without `/v1`, unless it has its own prefix."""

from frontend.endpoints.background import blueprint as background
from frontend.endpoints.chat import blueprint as chat
from frontend.endpoints.completions import blueprint as completions
from frontend.endpoints.embeddings import blueprint as embeddings
from frontend.endpoints.health import blueprint as health
from frontend.endpoints.images import blueprint as images
from frontend.endpoints.models import blueprint as models
from frontend.endpoints.rerank import blueprint as rerank
from frontend.endpoints.rerank import v2 as rerank_v2
from frontend.endpoints.responses import blueprint as responses
from frontend.endpoints.shutdown import blueprint as shutdown
from frontend.endpoints.speech import blueprint as speech
from frontend.endpoints.transcriptions import blueprint as transcriptions

BLUEPRINTS = (
    chat,
    responses,
    completions,
    embeddings,
    rerank,
    rerank_v2,
    transcriptions,
    speech,
    background,
    images,
    models,
    health,
    shutdown,
)
