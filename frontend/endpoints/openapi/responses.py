"""The models of responses, for the OpenAPI document. Responses may have further fields."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ResponseModel(BaseModel):
    """A JSON object in a response."""

    model_config = ConfigDict(extra="allow")


class ErrorDetails(ResponseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="The field that is to blame, if one is.")
    code: str | None


class ErrorResponse(ResponseModel):
    """An error, as OpenAI's API has it."""

    error: ErrorDetails


class ManagementError(ResponseModel):
    """An error of the management API."""

    success: Literal[False]
    message: str
    data: dict[str, Any] | None = Field(description="`param` names the field that is to blame, if one is.")
    errorCode: str  # noqa: N815
    timestamp: str


class Usage(ResponseModel):
    """The number of tokens."""

    prompt_tokens: int
    total_tokens: int


class ChatMessageResponse(ResponseModel):
    """The message of a choice."""

    role: Literal["assistant"]
    content: Any = Field(description="The text, or null for tool calls; a list of files in AHA's formats.")


class ChatChoice(ResponseModel):
    """One of the `n` choices."""

    index: int
    message: ChatMessageResponse
    finish_reason: str | None


class ChatCompletion(ResponseModel):
    """A chat completion. Streams send `chat.completion.chunk` objects, then `[DONE]`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]


class TextChoice(ResponseModel):
    """One of the choices."""

    index: int
    text: str
    finish_reason: str | None


class TextCompletion(ResponseModel):
    """A text completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class ResponseObject(ResponseModel):
    """A response of the Responses API."""

    id: str
    object: Literal["response"]
    status: str
    model: str
    output: list[dict[str, Any]]


class DeletedResponse(ResponseModel):
    """The deletion of a stored response."""

    id: str
    object: Literal["response"]
    deleted: bool


class EmbeddingRow(ResponseModel):
    """The embedding of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers, or little-endian float32 values in base64.")


class EmbeddingList(ResponseModel):
    """The embeddings, in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: Usage


class RankedDocument(ResponseModel):
    """A document and its relevance."""

    index: int
    relevance_score: float


class Ranking(ResponseModel):
    """The documents, the most relevant first."""

    id: str
    results: list[RankedDocument]


class Transcript(ResponseModel):
    """A transcript. `verbose_json` has further fields."""

    text: str


class ImageData(ResponseModel):
    """An image: `url` or `b64_json`."""


class ImageList(ResponseModel):
    """The generated images."""

    created: int
    data: list[ImageData]


class ModelObject(ResponseModel):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    task: str
    capabilities: list[str]
    state: str


class ModelList(ResponseModel):
    """The models."""

    object: Literal["list"]
    data: list[ModelObject]


class VoiceList(ResponseModel):
    """The voices of speech models."""

    object: Literal["list"]
    voices: list[dict[str, Any]]


class Health(ResponseModel):
    """Whether the models respond."""

    status: str


class ApiKeyResponse(ResponseModel):
    """An API key. Only the response that created or rotated it has `keyValue`."""

    keyId: str  # noqa: N815
    role: str
    enabled: bool
    keyValue: str = Field("", description="The key, only when it was created or rotated.")  # noqa: N815
    suffix: str = Field(description="The last four characters of the key.")
    createdAt: str  # noqa: N815
    expiresAt: str | None  # noqa: N815


class ApiKeyList(ResponseModel):
    """The keys and their number."""

    items: list[ApiKeyResponse]
    total: int
    enabledCount: int  # noqa: N815
    disabledCount: int  # noqa: N815
    expiredCount: int  # noqa: N815
    summary: str


class InstanceResponse(ResponseModel):
    """An instance."""

    instanceId: str  # noqa: N815
    name: str
    baseUrl: str  # noqa: N815
    weight: float
    enabled: bool
    status: Literal["active", "inactive"]


class NewVersion(ResponseModel):
    """The version that a change has made."""

    version: int


class VersionDetails(ResponseModel):
    """A version of the configuration."""

    version: int
    createdAt: str  # noqa: N815
    actor: str
    comment: str
    current: bool
