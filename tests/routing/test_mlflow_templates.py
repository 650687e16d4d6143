"""A prompt as MLflow's template: what MLflow makes of it is what the prompt itself renders to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tailrace import Prompt
from tailrace.core.documents import parts
from tailrace.core.errors import DestinationError
from tailrace.routing.registries.mlflow_template import template_of


def loaded(prompt: Prompt) -> Any:
    """The template as MLflow loads it."""
    from mlflow.entities import model_registry

    entities: Any = model_registry
    return entities.PromptVersion("p", 1, template_of(prompt))


def formatted(prompt: Prompt, values: dict[str, str]) -> Any:
    """What MLflow makes of the template."""
    return loaded(prompt).format(**values)


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("Hello {name}", "Hello {{name}}"),
        ("{{name}} and {{0}}", "{name} and {0}"),
        ('{"answer": {answer}}', '{"answer": {{answer}}}'),
        ("{a}{b}", "{{a}}{{b}}"),
        ("{% without an end {a}", "{% without an end {{a}}"),
        ("", ""),
    ],
)
def test_a_template_has_two_braces_where_the_prompt_has_one(text: str, template: str) -> None:
    assert template_of(Prompt(text)) == template


@pytest.mark.parametrize("text", ["{{ name }} {name}", "{{{name}}}", "{% if x %}{name}{% endif %}\r\n", "{prompt}"])
def test_what_mlflows_own_form_cannot_say_becomes_jinja(text: str) -> None:
    template = template_of(Prompt(text))
    assert isinstance(template, str)
    assert template.endswith("{% raw %}{% endraw %}")
    values = {"name": "Eve", "prompt": "?"}
    assert formatted(Prompt(text), values) == Prompt(text).render(**values)


NAMES = ["a", "b_1", "Name", "if", "class", "range", "dict", "loop", "super", "caller", "kwargs", "values", "prompt"]
SCRAPS = [*"{}%#-+\"'\\ \n\r$", "{{", "}}", "{%", "%}", "{#", "#}", "{% raw %}", "{% endraw %}", "größe", "a.b"]
TEXT = st.lists(st.sampled_from([*SCRAPS, *NAMES, *(f"{{{name}}}" for name in NAMES)]), max_size=12).map("".join)
# MLflow looks for variables in values, too, so those with braces are not rendered alike: the docs say so.
VALUE = st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=8) | st.sampled_from(["\\1", "\\g<0>"])


@settings(max_examples=400, deadline=None)
@given(text=TEXT, value=VALUE)
@example("{{a}{a}}{{{a}}", "x")
@example("{a}\n", "x")
@example("{{ a }}{", "x")
@example("{% {{%{a}%}", "x")
def test_mlflow_renders_a_text_as_the_prompt_does(text: str, value: str) -> None:
    prompt = Prompt(text)
    values = {name: f"{value}{index}" for index, name in enumerate(["more", *NAMES])}
    assume(set(prompt.variables) <= set(values))
    if "prompt" not in prompt.variables:
        del values["prompt"]  # MLflow takes it only where it is a variable
    assert formatted(prompt, values) == prompt.render(**values)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=3), value=VALUE)
@example(["Be {a}.", "{{ b }}", "{% x %}"], "x")
def test_mlflow_renders_messages_as_the_prompt_does(texts: list[str], value: str) -> None:
    prompt = Prompt([{"role": "user", "content": text} for text in texts])
    values = dict.fromkeys(NAMES, value)
    assume(set(prompt.variables) <= set(values))
    if "prompt" not in prompt.variables:
        del values["prompt"]  # MLflow takes it only where it is a variable
    assert formatted(prompt, values) == prompt.render(**values)


@given(TEXT)
def test_the_parts_of_a_text_are_the_text(text: str) -> None:
    found = parts(text)
    assert tuple(dict.fromkeys(found[1::2])) == Prompt(text).variables
    assert "".join(found) == Prompt(text).render(**{name: name for name in found[1::2]})


def test_mlflow_knows_the_variables_of_either_form() -> None:
    for text in ("{a} {{b}} {c}", "{a} {{ b }} {c}"):
        assert loaded(Prompt(text)).variables == {"a", "c"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("{größe} {a} {self}", "no variable of the name 'größe', 'self'"),
        ("{allow_partial}", "no variable of the name 'allow_partial'"),
        ("{true} {{ b }}", "no variable of the name 'true'"),
        ([], "it has no messages"),
        ([{"role": "user", "content": [{"type": "image"}]}], "renders the role and the text"),
        ([{"role": "user", "content": "x", "name": "Eve"}], "renders the role and the text .*'name': 'Eve'"),
        ([{"role": 1, "content": "x"}], "renders the role and the text"),
    ],
)
def test_what_mlflow_would_render_otherwise_is_refused(data: Any, why: str) -> None:
    with pytest.raises(DestinationError, match=why):
        template_of(Prompt(data))
