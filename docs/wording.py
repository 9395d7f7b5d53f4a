"""Finds phrases that are not plain English, or not the usual technical term, in the project's text files.

`python -m docs.wording` exits with code 1 if it finds such a phrase. To keep a phrase, add the comment `wording: allow`
to its line; the check then skips that line.
"""

import re
import subprocess
import sys
from collections.abc import Iterator

from contract.paths import CHECKOUT

_PHRASES = {
    r"\bbut for\b": "except for",
    r"\bthose (?:that|which|who)\b": "name the noun: 'requests that …'",
    r"\bwhoever\b": "anyone who, or name the actor",
    r"\b(?:most|least)_[a-z]\w*": "max_…, min_…",
    r"\bwho (?:asks|left|leaves|waits|wants)\b": "name the actor: 'a client that …'",
    r"\bwhat (?:is|was) (?:asked|left|not|sent|made|taken|said|refused)\b": "use a noun: 'the text that was sent'",
    r"\b(?:is|are|has|have) gone\b": "disconnected, expired, exited",
    r"\bjust now\b": "currently",
    r"\btells? whether\b": "Return whether",
    r"\b(?:lets?|letting) go\b": "free, release, stop",
    r"\b\d+ \w+ at most\b": "at most N …",
    r"\bof the server tells\b": "write 'see the server log'",
}
_PATTERN = re.compile("|".join(f"({phrase})" for phrase in _PHRASES), re.IGNORECASE)
_HINTS = list(_PHRASES.values())

# Files that are not checked: lock files, JSON, the license, texts for tests and benchmarks, and this file, which lists
# the phrases.
_SKIPPED = re.compile(r"\.(lock|json|png)$|^LICENSE$|^bench/prompts\.txt$|^tests/support/pages\.py$|^docs/wording\.py$")


def main() -> None:
    """Print every finding, and exit with code 1 if there are any findings."""
    found = [finding for name in tracked_files() for finding in findings(name)]
    if found:
        print("\n".join(found))
        sys.exit(f"{len(found)} phrases to reword; CONTRIBUTING.md has the style sheet")


def tracked_files() -> list[str]:
    """Return the paths of the files to check: tracked or new, but not ignored by Git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=CHECKOUT, capture_output=True, encoding="utf-8", check=True).stdout
    return [name for name in output.splitlines() if not _SKIPPED.search(name) and (CHECKOUT / name).is_file()]


def findings(name: str) -> Iterator[str]:
    """Yield a message for each phrase found in a file, with the line number and a hint."""
    for number, line in enumerate((CHECKOUT / name).read_text(encoding="utf-8").splitlines(), 1):
        if "wording: allow" in line:
            continue
        for match in _PATTERN.finditer(line):
            yield f"{name}:{number}: '{match[0]}': {_HINTS[(match.lastindex or 0) - 1]}"


if __name__ == "__main__":
    main()
