"""What the OpenAPI document says of each operation, apart from the docstring of its view.

A test checks that every route has an entry here, and that the entry names the body that the view reads.
"""

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from frontend.endpoints.audio.speech import SpeechRequest
from frontend.endpoints.audio.transcriptions import TranscriptionRequest, TranslationRequest
from frontend.endpoints.chat.protocol import ChatCompletionRequest
from frontend.endpoints.completions.protocol import CompletionRequest
from frontend.endpoints.embeddings import EmbeddingRequest
from frontend.endpoints.images.background import RemovalForm, RemovalRequest
from frontend.endpoints.images.protocol import EditForm, GenerationRequest, VariationForm
from frontend.endpoints.management.instances import InstanceCommand
from frontend.endpoints.management.keys import RotateRequest
from frontend.endpoints.management.models import ModelRequest
from frontend.endpoints.openapi import responses as r
from frontend.endpoints.rerank import RerankRequest
from frontend.endpoints.responses.protocol import ResponseRequest
from frontend.gateway.configuration import CircuitBreaker, Instance, LoadBalance, RateLimit, ServiceRequest
from frontend.gateway.key_records import ImportRequest, KeyFields, NewKey

Query = dict[str, str | tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Operation:
    """The bodies, parameters and responses of an operation."""

    body: type[BaseModel] | None = None
    schema: dict[str, Any] | None = None
    """The schema of the body, if no class describes it."""
    needs_body: bool = True
    form: type[BaseModel] | None = None
    """The text fields of a form."""
    files: tuple[str, ...] = ()
    """The file fields of the form; the first is required."""
    query: Query = field(default_factory=dict)
    """Parameters of the query → what they mean, with a schema if not every text is valid. `!` ends required ones."""
    response: Any = None
    """The class of the response, or of its `data`; None: any JSON. A text: the content type."""
    is_list: bool = False
    """Whether `data` is a list of that class."""
    status: int = 200
    errors: tuple[int, ...] = ()
    """Statuses of errors, besides the ones that all operations have."""
    example: Any = None
    """An example of the body."""
    form_example: Any = None
    """An example of the text fields of the form."""
    event_stream: bool = False
    """Whether the response can be a stream of server-sent events."""


_MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
_LIMIT = {"algorithm": "token-bucket", "capacity": 100, "rate": 10}
_INSTANCE_ID = "smollm2-135m@http://10.0.0.2:8000"
_NAMES = {"type": "object", "additionalProperties": {"type": "string"}}
_URL = {"pattern": "^(http|grpc)://"}
_NAMED: Query = {
    "modelName!": "Name of the model in Triton.",
    "baseUrl!": ("URL of the Triton.", _URL),
}
_NUMBER = {"pattern": "^[1-9][0-9]{0,8}$"}
_LIMIT_SCHEMA = {"pattern": "^[1-9][0-9]{0,2}$"}
_DAY = {"format": "date"}
_TAG = {"pattern": "^[^:]+:"}
_BOOLEAN = {"enum": ["true", "false"]}
_GROUP = {"pattern": "^(day|key|model|service)$"}
_JAIROUTER = {"enum": ["jairouter"]}
_EXPECTED: Query = {
    "expectedVersion": ("Version that the change was made from; another current version is a 409.", _NUMBER)
}

OPERATIONS: dict[str, Operation] = {
    "chat.create_chat_completion": Operation(
        ChatCompletionRequest,
        response=r.ChatCompletion,
        event_stream=True,
        example={"model": "gpt-4o", "messages": _MESSAGES, "max_tokens": 32},
    ),
    "responses.create_response": Operation(
        ResponseRequest,
        response=r.ResponseObject,
        event_stream=True,
        example={"model": "gpt-4o", "input": "Say hello."},
    ),
    "responses.retrieve_response": Operation(response=r.ResponseObject),
    "responses.delete_response": Operation(response=r.DeletedResponse),
    "completions.create_completion": Operation(
        CompletionRequest,
        response=r.TextCompletion,
        event_stream=True,
        example={"model": "chat", "prompt": "Once upon a time", "max_tokens": 16},
    ),
    "embeddings.create_embedding": Operation(
        EmbeddingRequest, response=r.EmbeddingList, example={"model": "embedding", "input": ["Hello world", "你好"]}
    ),
    "rerank.create_rerank": Operation(
        RerankRequest,
        response=r.Ranking,
        example={
            "model": "rerank",
            "query": "What is Rust?",
            "documents": ["Rust is a language.", "Apples are fruit."],
        },
    ),
    "rerank_v2.create_rerank_v2": Operation(
        RerankRequest,
        response=r.Ranking,
        example={"model": "rerank", "query": "What is Rust?", "documents": ["Rust is a language."], "top_n": 1},
    ),
    "transcriptions.create_transcription": Operation(
        form=TranscriptionRequest,
        files=("file",),
        response=r.Transcript,
        form_example={"model": "whisper-1", "response_format": "json"},
        event_stream=True,
    ),
    "transcriptions.create_translation": Operation(
        form=TranslationRequest, files=("file",), response=r.Transcript, form_example={"model": "whisper-1"}
    ),
    "speech.create_speech": Operation(
        SpeechRequest,
        response="audio/*",
        event_stream=True,
        example={"model": "tts-1", "input": "Good morning.", "voice": "alloy", "response_format": "wav"},
    ),
    "speech.list_voices": Operation(query={"model": "Model whose voices are listed."}, response=r.VoiceList),
    "background.remove_background": Operation(
        RemovalRequest,
        form=RemovalForm,
        files=("image",),
        form_example={"output_format": "png"},
        response=r.ChatCompletion,
        example={
            "model": "u2netp",
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "https://example.com/cat.jpg"}}],
                }
            ],
        },
    ),
    "images.create_image": Operation(
        GenerationRequest,
        response=r.ImageList,
        event_stream=True,
        example={"model": "dall-e-3", "prompt": "A cat in a garden", "size": "512x512"},
    ),
    "images.create_image_edit": Operation(
        form=EditForm,
        files=("image", "mask"),
        response=r.ImageList,
        form_example={"prompt": "Add a hat", "size": "512x512"},
        event_stream=True,
    ),
    "images.create_image_variation": Operation(
        form=VariationForm,
        files=("image",),
        response=r.ImageList,
        form_example={"n": 2},
        event_stream=True,
    ),
    "images.retrieve_image": Operation(response="image/*"),
    "models.list_models": Operation(response=r.ModelList, errors=(503,)),
    "models.retrieve_model": Operation(response=r.ModelObject),
    "health.get_health": Operation(response=r.Health, errors=(503,)),
    "shutdown.shut_down": Operation(errors=(403,)),
    "root.get_root": Operation(response="text/plain"),
    "monitoring.get_metrics": Operation(
        query={"names": ("`jairouter`: the metrics under JAiRouter's names.", _JAIROUTER)},
        response="text/plain",
    ),
    "monitoring.get_links": Operation(),
    "monitoring.get_health": Operation(response=r.Health, errors=(503,)),
    "monitoring.get_liveness": Operation(response=r.Health),
    "monitoring.get_readiness": Operation(response=r.Health, errors=(503,)),
    "monitoring.get_component_health": Operation(response=r.Health, errors=(503,)),
    "monitoring.get_info": Operation(),
    "monitoring.list_metrics": Operation(),
    "monitoring.retrieve_metric": Operation(
        query={"tag": ("`KEY:VALUE` that the series must have; repeatable.", _TAG)}
    ),
    "management_keys.list_keys": Operation(response=r.ApiKeyList),
    "management_keys.create_key": Operation(
        NewKey,
        response=r.ApiKeyResponse,
        status=201,
        errors=(409,),
        example={"keyId": "alice", "permissions": ["chat", "embedding"], "rateLimitPerMinute": 60},
    ),
    "management_keys.export_keys": Operation(),
    "management_keys.import_keys": Operation(
        ImportRequest, errors=(409,), example={"mode": "MERGE", "keys": [{"keyId": "alice"}]}
    ),
    "management_keys.get_quota_overview": Operation(),
    "management_keys.get_quota_alerts": Operation(),
    "management_keys.get_key": Operation(response=r.ApiKeyResponse),
    "management_keys.update_key": Operation(
        KeyFields, response=r.ApiKeyResponse, errors=(409,), example={"tokensPerMinute": 20_000}
    ),
    "management_keys.delete_key": Operation(),
    "management_keys.enable_key": Operation(response=r.ApiKeyResponse),
    "management_keys.disable_key": Operation(response=r.ApiKeyResponse),
    "management_keys.rotate_key": Operation(
        RotateRequest, needs_body=False, response=r.ApiKeyResponse, example={"overlapSeconds": 3600}
    ),
    "management_keys.reset_key": Operation(response=r.ApiKeyResponse),
    "management_keys.get_quota": Operation(),
    "management_keys.reset_quota": Operation(),
    "management_services.get_configuration": Operation(),
    "management_services.list_services": Operation(),
    "management_services.get_service": Operation(),
    "management_services.create_service": Operation(
        ServiceRequest, query=_EXPECTED, status=201, errors=(409,), example={"rateLimit": _LIMIT}
    ),
    "management_services.update_service": Operation(
        ServiceRequest, query=_EXPECTED, errors=(409,), example={"loadBalance": {"type": "round-robin"}}
    ),
    "management_services.delete_service": Operation(query=_EXPECTED, errors=(409,)),
    "management_services.list_models_of_service": Operation(),
    "management_services.reset_configuration": Operation(query=_EXPECTED, response=r.NewVersion, errors=(409,)),
    "management_services.get_aliases": Operation(),
    "management_services.set_aliases": Operation(
        schema=_NAMES, query=_EXPECTED, errors=(409,), example={"my-model": "chat"}
    ),
    "management_services.get_default_models": Operation(),
    "management_services.set_default_models": Operation(
        schema=_NAMES, query=_EXPECTED, errors=(404, 409), example={"chat": "smollm2-135m"}
    ),
    "management_services.get_limits": Operation(),
    "management_services.set_limits": Operation(
        schema={
            "type": "object",
            "properties": {
                "rateLimit": {"$ref": "#/components/schemas/RateLimit"},
                "clientRateLimit": {"$ref": "#/components/schemas/RateLimit"},
                "modelRateLimits": {
                    "type": "object",
                    "additionalProperties": {"$ref": "#/components/schemas/RateLimit"},
                },
            },
            "additionalProperties": False,
        },
        query=_EXPECTED,
        errors=(409,),
        example={"rateLimit": {"requestsPerMinute": 600, "parallelRequests": 64}},
    ),
    "management_instances.list_all_instances": Operation(response=r.InstanceResponse, is_list=True),
    "management_instances.list_instances": Operation(response=r.InstanceResponse, is_list=True),
    "management_instances.get_instance": Operation(query=_NAMED, response=r.InstanceResponse),
    "management_instances.add_instance": Operation(
        Instance,
        query=_EXPECTED | {"force": ("`true`: add it even if its Triton does not respond.", _BOOLEAN)},
        response=r.InstanceResponse,
        status=201,
        errors=(409,),
        example={"name": "smollm2-135m", "baseUrl": "http://10.0.0.2:8000", "weight": 2},
    ),
    "management_instances.update_instance": Operation(
        schema={
            "type": "object",
            "properties": {
                "instanceId": {"type": "string"},
                "instance": {"type": "object", "description": "The fields to change."},
            },
            "required": ["instanceId", "instance"],
            "additionalProperties": False,
        },
        query=_EXPECTED,
        response=r.InstanceResponse,
        errors=(409,),
        example={"instanceId": _INSTANCE_ID, "instance": {"weight": 4}},
    ),
    "management_instances.delete_instance": Operation(query=_NAMED | _EXPECTED, errors=(409,)),
    "management_instances.delete_instance_by_id": Operation(query=_EXPECTED, errors=(409,)),
    "management_instances.update_instance_by_id": Operation(
        schema={"type": "object", "description": "The fields to change."},
        query=_EXPECTED,
        response=r.InstanceResponse,
        errors=(409,),
        example={"weight": 4},
    ),
    "management_instances.get_instance_limit": Operation(),
    "management_instances.get_instance_breaker": Operation(),
    "management_instances.get_instance_by_id": Operation(response=r.InstanceResponse),
    "management_instances.set_instance_limit": Operation(
        RateLimit, query=_EXPECTED, response=r.InstanceResponse, errors=(409,), example=_LIMIT
    ),
    "management_instances.set_instance_breaker": Operation(
        CircuitBreaker, query=_EXPECTED, response=r.InstanceResponse, errors=(409,), example={"failureThreshold": 3}
    ),
    "management_instances.reset_instance_breaker": Operation(),
    "management_instances.drain_instance": Operation(InstanceCommand, example={"instanceId": _INSTANCE_ID}),
    "management_instances.resume_instance": Operation(InstanceCommand, example={"instanceId": _INSTANCE_ID}),
    "management_versions.list_versions": Operation(),
    "management_versions.get_current_version": Operation(),
    "management_versions.list_version_details": Operation(response=r.VersionDetails, is_list=True),
    "management_versions.get_version": Operation(),
    "management_versions.compare_versions": Operation(),
    "management_versions.compare_with_previous": Operation(),
    "management_versions.apply_version": Operation(query=_EXPECTED, response=r.NewVersion, errors=(409,)),
    "management_versions.roll_back": Operation(query=_EXPECTED, response=r.NewVersion, errors=(409,)),
    "management_versions.delete_version": Operation(),
    "management_models.list_models": Operation(errors=(503,)),
    "management_models.get_stats": Operation(),
    "management_models.reload_model": Operation(ModelRequest, errors=(503,), example={"model": "smollm2-135m"}),
    "management_models.load_model": Operation(ModelRequest, errors=(503,), example={"model": "smollm2-135m"}),
    "management_models.unload_model": Operation(ModelRequest, errors=(503,), example={"model": "smollm2-135m"}),
    "management_monitoring.get_config": Operation(),
    "management_monitoring.get_config_snapshot": Operation(),
    "management_monitoring.get_health": Operation(),
    "management_monitoring.get_overview": Operation(),
    "management_monitoring.get_instances": Operation(),
    "management_monitoring.get_load_balancer": Operation(),
    "management_monitoring.get_rate_limit": Operation(),
    "management_monitoring.get_circuit_breakers": Operation(),
    "management_monitoring.get_circuit_breaker_stats": Operation(query={"instanceId": "ID of an instance."}),
    "management_monitoring.force_open": Operation(query={"instanceId!": "ID of the instance."}),
    "management_monitoring.force_close": Operation(query={"instanceId!": "ID of the instance."}),
    "management_monitoring.list_errors": Operation(query={"limit": ("Maximum number of errors (100).", _LIMIT_SCHEMA)}),
    "management_monitoring.get_error_stats": Operation(),
    "management_balancing.list_strategies": Operation(),
    "management_balancing.get_status": Operation(),
    "management_balancing.get_service_status": Operation(),
    "management_balancing.get_stats": Operation(),
    "management_balancing.get_global_configuration": Operation(),
    "management_balancing.get_strategy": Operation(),
    "management_balancing.set_strategy": Operation(
        LoadBalance, query=_EXPECTED, errors=(409,), example={"type": "prefix-affinity"}
    ),
    "management_limits.get_status": Operation(),
    "management_limits.get_metrics": Operation(),
    "management_limits.get_summary": Operation(),
    "management_limits.get_prometheus_info": Operation(),
    "management_usage.get_usage": Operation(
        query={
            "from": ("First UTC day, YYYY-MM-DD (today).", _DAY),
            "to": ("Last UTC day (today).", _DAY),
            "keyId": "ID of a key.",
            "model": "ID of a model.",
            "groupBy": (
                "`day`, `key`, `model`, `service`, separated by commas.",
                {"pattern": "^(day|key|model|service)$"},
            ),
            "format": ("`json` or `csv`.", {"enum": ["json", "csv"]}),
        }
    ),
    "management_usage.get_openai_usage": Operation(
        query={
            "start_time!": ("Unix time.", _NUMBER),
            "end_time": ("Unix time (now).", _NUMBER),
            "limit": ("Maximum number of buckets, up to 31 (7).", {"pattern": "^[1-9]$"}),
            "page": ("`next_page` of the response before.", _NUMBER),
            "bucket_width": ("`1d`.", {"enum": ["1d"]}),
            "group_by": ("`model` or `api_key_id`; repeatable.", {"enum": ["model", "api_key_id"]}),
        }
    ),
    "management_audit.list_changes": Operation(
        query={
            "limit": ("Maximum number of changes (100).", _LIMIT_SCHEMA),
            "before": ("ID that the changes must be older than.", _NUMBER),
        }
    ),
}

UNDOCUMENTED = ("openapi.", "management_unsupported.")
"""Beginnings of the names of views that the document leaves out."""
