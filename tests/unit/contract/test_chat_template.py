"""Chat templates that loop, take too much memory or leave the sandbox are rejected; all other loops work."""

import pytest

from contract.chat_template import ChatTemplate, TemplateRejected

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}{{ m.role }} {{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
         "user 1/2False assistant 2/2True "),
        ("{% for m in messages[::-1] if m.role == 'user' %}{{ m.content }}{% else %}none{% endfor %}", "hi"),
        ("{% for m in nothing %}{{ m }}{% else %}none{% endfor %}", "none"),
        ("{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}", "role=user;content=hi;"),
        ("{% macro roles(x) %}{% for m in x %}{{ m.role }}{% endfor %}{% endmacro %}{{ roles(messages) }}",
         "userassistant"),
        ("{% for i in range(3) %}{% for j in range(9) %}{{ i }}{{ j }} {% break %}{% endfor %}{% endfor %}",
         "00 10 20 "),
        ("{% for n in [{'c': [{'c': []}]}] recursive %}n{{ loop(n.c) }}{% endfor %}", "nn"),
        ("{% for m in messages %}{% generation %}{{ m.content }};{% endgeneration %}{% endfor %}", "hi;yes;"),
        ("{{ '-' * 3 }}{{ 3 * 4 }}{{ (messages * 2) | length }}", "---124"),
    ],
)  # fmt: skip
def test_loops_and_products_work(source, text):
    assert ChatTemplate(source).render(MESSAGES) == text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "loops too often"),
        ("{% set r = range(9999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}", "loops too often"),
        ("{% set limit_loop = range %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
         "loops too often"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "cannot use"),
        ("{{ 'a' * 1000000000000 }}", "too long"),
        ("{{ 1000000000000 * [messages] }}", "too long"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)  # fmt: skip
def test_endless_and_unsafe_templates_are_rejected(source, reason):
    with pytest.raises(TemplateRejected, match=reason):
        ChatTemplate(source).render(MESSAGES)


def test_a_long_conversation_is_not_too_long():
    source = "{% for m in messages %}{% for other in messages %}{% endfor %}{{ m.content }}{% endfor %}"
    assert ChatTemplate(source).render(MESSAGES * 500) == "hiyes" * 500
