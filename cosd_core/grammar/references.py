"""References within JSON Schemas, resolved by the package that jsonschema uses. Nothing is downloaded."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar.schema_limits import check_chain_length
from cosd_core.grammar.schema_validation import metaschema_error

_REFERENCE_KEYWORDS = ("$ref", "$dynamicRef")


class Place(NamedTuple):
    """A subschema, and the resolver of the references in it.

    Attributes:
        schema: The subschema.
        resolver: What ``$id`` above it refers references to.
        specification: The draft by which subschemas are found.
        targets: The subschemas that references refer to, by the schema with the reference: shared by all
            places of a schema, because a lookup takes 0.2 ms.
    """

    schema: Any
    resolver: Any
    specification: Any
    targets: dict[tuple[int, str], "Place"]

    @classmethod
    def root(cls, schema: Any, dialect: str) -> Self:
        """The whole schema of a draft."""
        from jsonschema_specifications import REGISTRY
        from referencing.jsonschema import specification_with

        specification = specification_with(dialect)
        resolver = REGISTRY.resolver_with_root(specification.create_resource(schema))
        return cls(schema, resolver, specification, {})

    def inner(self, schema: Any) -> Self:
        """A subschema of this one."""
        resolver = self.resolver.in_subresource(self.specification.create_resource(schema))
        return self._replace(schema=schema, resolver=resolver)

    def target(self, reference: str) -> "Place":
        """What a reference in this subschema refers to.

        Raises:
            InvalidOptionError: It refers to nothing.
        """
        from referencing.exceptions import Unresolvable

        key = (id(self.schema), reference)
        if key in self.targets:
            return self.targets[key]
        try:
            resolved = self.resolver.lookup(reference)
        except (Unresolvable, ValueError, TypeError, LookupError) as error:
            raise InvalidOptionError(
                f"$ref={quoted(reference)} of the schema refers to nothing in it; schemas are not downloaded"
            ) from error
        self.targets[key] = self._replace(schema=resolved.contents, resolver=resolved.resolver)
        return self.targets[key]


def check_references(root: Place, draft: Any) -> None:
    """Check that every reference of a schema refers to a subschema, and how deep references lead.

    Keywords that the draft does not know are removed: their values may be anything.

    Args:
        root: The schema, which is valid. It is changed.
        draft: The class of validators of its draft. What a reference refers to may be at a place of which the
            metaschema says nothing.

    Raises:
        InvalidOptionError: One refers to nothing or to no schema, or they lead too deep.
    """
    unknown = _unknown_keywords(draft)
    valid = _remove(root, unknown)
    seen: set[int] = set()
    deepest, stack = 0, [(root, 1)]
    while stack:  # in the order of a recursive walk, so that the depth is that of a recursive compiler
        place, depth = stack.pop()
        if not isinstance(place.schema, Mapping) or id(place.schema) in seen:
            continue
        seen.add(id(place.schema))
        deepest = max(deepest, depth)
        inner = map(place.inner, place.specification.subresources_of(place.schema))
        targets = [*_targets(place)]
        for target in targets:
            if id(target.schema) not in valid:
                if error := metaschema_error(draft, target.schema):
                    raise InvalidOptionError(error)
                valid |= _remove(target, unknown)
        children = [*targets, *inner]
        stack.extend((child, depth + 1) for child in reversed(children))
    check_chain_length(deepest)


def _unknown_keywords(draft: Any) -> set[str]:
    """The keywords of 2020-12 that a draft does not know."""
    from jsonschema import Draft202012Validator

    unknown = {*Draft202012Validator.VALIDATORS} - {*draft.VALIDATORS, *draft.META_SCHEMA["properties"]}
    # jsonschema reads these together with another one
    parts = {"unevaluatedItems": ("minContains", "maxContains"), "if": ("then", "else")}
    return unknown.union(*(parts[each] for each in unknown & parts.keys()))


def _remove(root: Place, keywords: set[str]) -> set[int]:
    """Remove keywords from a schema and all its subschemas; returns the identities of these."""
    found: set[int] = set()
    stack = [root.schema]
    while stack:
        schema = stack.pop()
        if id(schema) not in found and isinstance(schema, dict):
            for keyword in keywords & schema.keys():
                del schema[keyword]
            stack.extend(root.specification.subresources_of(schema))
        found.add(id(schema))
    return found


def _targets(place: Place) -> Iterator[Place]:
    for keyword in _REFERENCE_KEYWORDS:
        if keyword in place.schema:
            reference = place.schema[keyword]
            if not isinstance(reference, str):  # the metaschemas of old drafts do not say so
                raise InvalidOptionError(f"{keyword}={quoted(reference)} of the schema should be a reference")
            target = place.target(reference)
            if not isinstance(target.schema, (Mapping, bool)):
                raise InvalidOptionError(f"{keyword}={quoted(reference)} of the schema refers to no schema")
            yield target
