"""Every document that the 0.31.0 client sends is valid: we validate strictly."""

from pathlib import Path

import pytest
from server_harness import Template

from launch_async.server.graphql import GraphQLErrors

DOCUMENTS = sorted((Path(__file__).parent / "documents").glob("*.graphql"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_of_the_client_is_valid(template: Template, path: Path) -> None:
    template.graphql.check(path.read_text())


def test_a_document_is_checked_once(template: Template) -> None:
    text = DOCUMENTS[0].read_text()
    assert template.graphql.check(text) is template.graphql.check(text)


def test_an_unknown_field_is_refused_in_the_words_that_the_client_looks_for(
    template: Template,
) -> None:
    with pytest.raises(GraphQLErrors, match="Cannot query field 'nonsense'"):
        template.graphql.check("{ viewer { nonsense } }")
