"""References within JSON Schemas, resolved by the package that jsonschema uses. Nothing is downloaded."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from cosd_core.errors import InvalidOptionError, quoted

_REFERENCE_KEYWORDS = ("$ref", "$dynamicRef")


class Place(NamedTuple):
    """A subschema, and the resolver of the references in it.

    Attributes:
        schema: The subschema.
        resolver: What ``$id`` above it refers references to.
        specification: The draft by which subschemas are found.
    """

    schema: Any
    resolver: Any
    specification: Any

    @classmethod
    def root(cls, schema: Any, dialect: str) -> Self:
        """The whole schema of a draft."""
        from jsonschema_specifications import REGISTRY
        from referencing.jsonschema import specification_with

        specification = specification_with(dialect)
        resolver = REGISTRY.resolver_with_root(specification.create_resource(schema))
        return cls(schema, resolver, specification)

    def inner(self, schema: Any) -> Self:
        """A subschema of this one."""
        resolver = self.resolver.in_subresource(self.specification.create_resource(schema))
        return self._replace(schema=schema, resolver=resolver)

    def target(self, reference: str) -> Self:
        """What a reference in this subschema refers to.

        Raises:
            InvalidOptionError: It refers to nothing.
        """
        from referencing.exceptions import Unresolvable

        try:
            resolved = self.resolver.lookup(reference)
        except (Unresolvable, ValueError, TypeError, LookupError) as error:
            raise InvalidOptionError(
                f"$ref={quoted(reference)} of the schema refers to nothing in it; schemas are not downloaded"
            ) from error
        return self._replace(schema=resolved.contents, resolver=resolved.resolver)


def check_references(root: Place) -> None:
    """Check that every reference of a schema refers to a subschema.

    Raises:
        InvalidOptionError: One refers to nothing.
    """
    seen: set[int] = set()
    stack = [root]
    while stack:
        place = stack.pop()
        if not isinstance(place.schema, Mapping) or id(place.schema) in seen:
            continue
        seen.add(id(place.schema))
        for keyword in _REFERENCE_KEYWORDS:
            if isinstance(reference := place.schema.get(keyword), str):
                target = place.target(reference)
                if not isinstance(target.schema, (Mapping, bool)):
                    raise InvalidOptionError(
                        f"{keyword}={quoted(reference)} of the schema refers to no schema"
                    )
                stack.append(target)
        stack.extend(map(place.inner, place.specification.subresources_of(place.schema)))
