"""Decides whether a grammar in the engine's EBNF accepts a text; independent of the code that writes grammars."""

import ast
import functools
import re

TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\w+|\{\d+(?:,\d*)?\}|[()|*+?]')


class Matcher:
    """The accepted texts of a grammar with one rule per line, which begin with the rule `root`."""

    def __init__(self, grammar):
        lines = [line.split("::=", 1) for line in grammar.strip().splitlines()]
        self._rules = {name.strip(): TOKEN.findall(body) for name, body in lines}

    def accepts(self, text):
        self._text = text
        self._rule.cache_clear()
        return len(text) in self._rule("root", 0)

    @functools.cache  # noqa: B019 - cleared for each text
    def _rule(self, name, start):
        ends, position = self._alternatives(self._rules[name], 0, frozenset([start]))
        assert position == len(self._rules[name])
        return ends

    def _alternatives(self, tokens, position, starts):
        """Return where the alternatives from `position` on may end, and the position of the token after them."""
        result, current = set(), starts
        while position < len(tokens) and tokens[position] != ")":
            if tokens[position] == "|":
                result |= current
                current, position = starts, position + 1
                continue
            first = position
            current, position = self._quantified(tokens, first, current)
        return frozenset(result | current), position

    def _quantified(self, tokens, first, starts):
        ends, position = self._term(tokens, first, starts)
        if position == len(tokens) or tokens[position][0] not in "*+?{":
            return ends, position
        quantifier = {"*": "{0,}", "+": "{1,}", "?": "{0,1}"}.get(tokens[position], tokens[position])[1:-1]
        minimum, comma, maximum = quantifier.partition(",")
        limit = int(maximum) if maximum else len(self._text) + 1 if comma else int(minimum)
        reached, current = (starts if int(minimum) == 0 else frozenset()), starts
        for count in range(1, limit + 1):
            current, _ = self._term(tokens, first, current)
            if not current:
                break
            if count >= int(minimum):
                if current <= reached:
                    break
                reached |= current
        return reached, position + 1

    def _term(self, tokens, position, starts):
        token = tokens[position]
        if token == "(":
            ends, position = self._alternatives(tokens, position + 1, starts)
            return ends, position + 1
        if token[0] == '"':
            text = ast.literal_eval(token)
            return frozenset(s + len(text) for s in starts if self._text.startswith(text, s)), position + 1
        if token[0] == "[":
            return frozenset(s + 1 for s in starts if re.match(token, self._text[s : s + 1])), position + 1
        return frozenset(end for start in starts for end in self._rule(token, start)), position + 1
