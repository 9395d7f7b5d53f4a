"""The management API, /api/…: keys, configuration, models, limits, usage and monitoring."""

from frontend.endpoints.management.audit import blueprint as audit
from frontend.endpoints.management.balancing import blueprint as balancing
from frontend.endpoints.management.instances import blueprint as instances
from frontend.endpoints.management.keys import blueprint as keys
from frontend.endpoints.management.limits import blueprint as limits
from frontend.endpoints.management.models import blueprint as models
from frontend.endpoints.management.monitoring import blueprint as monitoring
from frontend.endpoints.management.services import blueprint as services
from frontend.endpoints.management.unsupported import blueprint as unsupported
from frontend.endpoints.management.usage import blueprint as usage
from frontend.endpoints.management.versions import blueprint as versions

BLUEPRINTS = (
    keys,
    services,
    instances,
    versions,
    models,
    monitoring,
    balancing,
    limits,
    usage,
    audit,
    unsupported,
)
