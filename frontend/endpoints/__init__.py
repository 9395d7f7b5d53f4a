"""One file per resource of the API. Each blueprint is served with and without `/v1`."""

from frontend.endpoints.chat import blueprint as chat
from frontend.endpoints.health import blueprint as health
from frontend.endpoints.models import blueprint as models
from frontend.endpoints.shutdown import blueprint as shutdown

BLUEPRINTS = (chat, models, health, shutdown)
