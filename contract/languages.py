"""The languages that Whisper models know, and the spellings in which requests may name them."""

LANGUAGES = {
    **{"af": "afrikaans", "am": "amharic", "ar": "arabic", "as": "assamese", "az": "azerbaijani", "ba": "bashkir"},
    **{"be": "belarusian", "bg": "bulgarian", "bn": "bengali", "bo": "tibetan", "br": "breton", "bs": "bosnian"},
    **{"ca": "catalan", "cs": "czech", "cy": "welsh", "da": "danish", "de": "german", "el": "greek", "en": "english"},
    **{"es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish", "fo": "faroese"},
    **{"fr": "french", "gl": "galician", "gu": "gujarati", "ha": "hausa", "haw": "hawaiian", "he": "hebrew"},
    **{"hi": "hindi", "hr": "croatian", "ht": "haitian creole", "hu": "hungarian", "hy": "armenian"},
    **{"id": "indonesian", "is": "icelandic", "it": "italian", "ja": "japanese", "jw": "javanese", "ka": "georgian"},
    **{"kk": "kazakh", "km": "khmer", "kn": "kannada", "ko": "korean", "la": "latin", "lb": "luxembourgish"},
    **{"ln": "lingala", "lo": "lao", "lt": "lithuanian", "lv": "latvian", "mg": "malagasy", "mi": "maori"},
    **{"mk": "macedonian", "ml": "malayalam", "mn": "mongolian", "mr": "marathi", "ms": "malay", "mt": "maltese"},
    **{"my": "myanmar", "ne": "nepali", "nl": "dutch", "nn": "nynorsk", "no": "norwegian", "oc": "occitan"},
    **{"pa": "punjabi", "pl": "polish", "ps": "pashto", "pt": "portuguese", "ro": "romanian", "ru": "russian"},
    **{"sa": "sanskrit", "sd": "sindhi", "si": "sinhala", "sk": "slovak", "sl": "slovenian", "sn": "shona"},
    **{"so": "somali", "sq": "albanian", "sr": "serbian", "su": "sundanese", "sv": "swedish", "sw": "swahili"},
    **{"ta": "tamil", "te": "telugu", "tg": "tajik", "th": "thai", "tk": "turkmen", "tl": "tagalog", "tr": "turkish"},
    **{"tt": "tatar", "uk": "ukrainian", "ur": "urdu", "uz": "uzbek", "vi": "vietnamese", "yi": "yiddish"},
    **{"yo": "yoruba", "yue": "cantonese", "zh": "chinese"},
}
"""Whisper's code of each language → its English name."""

# Other codes and names → Whisper's code. `fil` is the code in AHA's API; the others are names of the same language, or
# codes that ISO 639 has replaced or subsumed.
_OTHERS = {
    **{"fil": "tl", "filipino": "tl", "nb": "no", "bokmål": "no", "bokmal": "no", "iw": "he", "in": "id", "jv": "jw"},
    **{"ji": "yi", "cmn": "zh", "mandarin": "zh", "burmese": "my", "valencian": "ca", "flemish": "nl", "farsi": "fa"},
    **{"haitian": "ht", "letzeburgesch": "lb", "pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro"},
    **{"mo": "ro", "sinhalese": "si", "castilian": "es", "zh-yue": "yue"},
}
_BY_NAME = {name: code for code, name in LANGUAGES.items()} | _OTHERS


def language_code(spelling: str) -> str | None:
    """Return Whisper's code of a language, or None if it is unknown.

    The language may be given as a code (`zh`), as a locale (`zh-CN`, `pt_BR`) or by its English name (`Chinese`).
    """
    text = spelling.strip().lower().replace("_", "-")
    for candidate in (text, text.partition("-")[0]):
        if candidate in LANGUAGES:
            return candidate
        if candidate in _BY_NAME:
            return _BY_NAME[candidate]
    return None
