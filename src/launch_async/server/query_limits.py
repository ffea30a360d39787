"""How large a GraphQL document may be: its check and its answer cost more than its text.

The client's largest has some 75 fields, 11 levels and two thousand characters.
"""

from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

MAX_TOKENS: Final = 10_000
MAX_FIELDS: Final = 1000
MAX_LEVELS: Final = 20


def check_size(document: DocumentNode) -> None:
    """Raise a GraphQLError for too many fields or levels, each fragment counted where it is used.

    Asked before the document is validated, as comparing fields takes time by the square.
    """
    counter = _Counter(document)
    fields = levels = 0
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            more, deep = counter.size_of(definition.selection_set)
            fields, levels = fields + more, max(levels, deep)
    if fields > MAX_FIELDS:
        raise GraphQLError(f"this document has more than {MAX_FIELDS} fields; ask for less at once")
    if levels > MAX_LEVELS:
        raise GraphQLError(f"this document has more than {MAX_LEVELS} levels; ask for less at once")


class _Counter:
    """Counts each fragment once, however often it is spread."""

    def __init__(self, document: DocumentNode) -> None:
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._sizes: dict[str, tuple[int, int]] = {}

    def size_of(self, selections: SelectionSetNode | None) -> tuple[int, int]:
        """Return (fields, levels) below a selection set."""
        fields = levels = 0
        for selection in () if selections is None else selections.selections:
            if isinstance(selection, FragmentSpreadNode):
                more, deep = self._size_of_fragment(selection.name.value)
            elif isinstance(selection, FieldNode):
                more, deep = self.size_of(selection.selection_set)
                more, deep = more + 1, deep + 1
            elif isinstance(selection, InlineFragmentNode):
                more, deep = self.size_of(selection.selection_set)
            else:
                raise TypeError("GraphQL has three kinds of selections")
            fields, levels = fields + more, max(levels, deep)
        return fields, levels

    def _size_of_fragment(self, name: str) -> tuple[int, int]:
        known = self._sizes.get(name)
        if known is not None:
            return known
        self._sizes[name] = (0, 0)  # a fragment within itself is refused by the validation
        fragment = self._fragments.get(name)
        found = (0, 0) if fragment is None else self.size_of(fragment.selection_set)
        self._sizes[name] = found
        return found
