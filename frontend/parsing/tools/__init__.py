"""The tool-call formats of model families. A model's `tool_format` parameter selects one of TOOL_FORMATS."""

from frontend.parsing.tools.deepseek import DEEPSEEK, DEEPSEEK_BARE
from frontend.parsing.tools.generic import GENERIC
from frontend.parsing.tools.hermes import HERMES
from frontend.parsing.tools.llama3 import LLAMA3
from frontend.parsing.tools.mistral import MISTRAL, MISTRAL_NAMED
from frontend.parsing.tools.phi import PHI
from frontend.parsing.tools.scanner import ToolFormat, ToolParser

TOOL_FORMATS = {
    "hermes": HERMES,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "mistral-v11": MISTRAL_NAMED,
    "phi": PHI,
    "deepseek": DEEPSEEK,
    "deepseek-v3.1": DEEPSEEK_BARE,
    "generic": GENERIC,
}
__all__ = ["TOOL_FORMATS", "ToolFormat", "ToolParser"]
