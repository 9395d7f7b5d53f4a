"""The API's endpoints: request models and views, one file or folder per resource.

Each blueprint in BLUEPRINTS is served with and without the prefix `/v1`, unless it has a prefix of its own.
"""

from frontend.endpoints.audio.speech import blueprint as speech
from frontend.endpoints.audio.transcriptions import blueprint as transcriptions
from frontend.endpoints.chat.view import blueprint as chat
from frontend.endpoints.completions.view import blueprint as completions
from frontend.endpoints.embeddings import blueprint as embeddings
from frontend.endpoints.health import blueprint as health
from frontend.endpoints.images.background import blueprint as background
from frontend.endpoints.images.view import blueprint as images
from frontend.endpoints.management import BLUEPRINTS as MANAGEMENT
from frontend.endpoints.models import blueprint as models
from frontend.endpoints.monitoring import blueprint as monitoring
from frontend.endpoints.openapi.view import blueprint as openapi
from frontend.endpoints.rerank import blueprint as rerank
from frontend.endpoints.rerank import v2 as rerank_v2
from frontend.endpoints.responses.view import blueprint as responses
from frontend.endpoints.root import blueprint as root
from frontend.endpoints.shutdown import blueprint as shutdown

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

UNVERSIONED = (root, monitoring, openapi, *MANAGEMENT)
"""Blueprints that are served only without the prefix `/v1`."""
