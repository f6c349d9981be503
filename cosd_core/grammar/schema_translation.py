"""Translates JSON Schemas to the keywords that llguidance compiles.

Keywords that it does not know are dropped, or replaced by weaker ones that it knows. References become
references to ``$defs``, so that anchors, ``$id`` and older drafts need no support.
"""

from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Any

from cosd_core.grammar.json_formats import ENFORCED_FORMATS
from cosd_core.grammar.lookaround import without_lookaround
from cosd_core.grammar.property_names import IN_PLACE, PropertyNames, in_place, property_names
from cosd_core.grammar.references import Place

_PLAIN = frozenset(
    (
        "type", "enum", "const", "required", "minimum", "maximum", "exclusiveMinimum",
        "exclusiveMaximum", "multipleOf",
    )
)  # fmt: skip
_COUNTS = frozenset(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"))
_LARGEST_COUNT = 1_000_000
_MOST_NAMES = 200
"""How many names are repeated in subschemas, to close objects."""

_MOST_DEFINITIONS = 2_000
"""A definition is translated once for every set of properties beside its references; with more, once."""

_MOST_SET_ITEMS = 4
"""Sets of up to so many different strings are listed: there are 65 lists of 4 without repetition."""

_NOTHING: frozenset[str] = frozenset()


class Translation:
    """One translation of a schema.

    Args:
        root: The schema.
        closes_objects: Whether objects that list properties, and do not say otherwise, admit no others.
    """

    def __init__(self, root: Place, *, closes_objects: bool) -> None:
        self._root = root
        self._closes = closes_objects
        self._names: dict[tuple[int, frozenset[str] | None], str] = {}
        self._known_names: dict[int, PropertyNames] = {}
        self._pending: list[tuple[str, Place, frozenset[str] | None]] = []

    def translate(self) -> dict[str, Any]:
        """The whole schema, with the definitions that it refers to."""
        translated = self._schema(self._root, _NOTHING if self._closes else None)
        definitions: dict[str, Any] = {}
        while self._pending:  # not recursive: definitions may refer to each other in long chains
            name, place, others = self._pending.pop()
            definitions[name] = self._schema(place, others)
        if isinstance(translated, bool):
            translated = {} if translated else {"allOf": [False]}
        return {**translated, "$defs": definitions} if definitions else translated

    def _schema(self, place: Place, others: frozenset[str] | None) -> Any:
        """A subschema.

        ``others`` are the properties that other schemas of the same object name; None: do not close it.
        """
        if not isinstance(place.schema, Mapping):
            return place.schema
        place = place._replace(schema=_as_2020(place))
        applied = [] if others is None else list(in_place(place))
        names = [(origin, each.schema, self._names_of(each)) for origin, each in applied]
        around = _united(others, [each for *_, each in names])
        translated: dict[str, Any] = {}
        for keyword, value in place.schema.items():
            if keyword in _PLAIN or (keyword == "format" and value in ENFORCED_FORMATS):
                translated[keyword] = value
            elif keyword == "pattern":
                translated[keyword] = without_lookaround(value)
            elif keyword in _COUNTS and (value <= _LARGEST_COUNT or keyword.startswith("min")):
                translated[keyword] = int(value)
            elif keyword == "$ref":
                beside = _beside(place.schema, names, keyword, None, others)
                translated[keyword] = self._reference(place.target(value), beside)
            elif keyword in IN_PLACE:
                translated[keyword] = [
                    self._schema(place.inner(each), _beside(place.schema, names, keyword, each, others))
                    for each in value
                ]
            else:
                self._inner(translated, place, keyword, around)
        _weaken(translated, place)
        if around is not None:
            _close(translated, place.schema, around)
        if around is None or around or not _least_is_enforced(translated):
            translated.pop("minProperties", None)
        return translated

    def _inner(
        self, translated: dict[str, Any], place: Place, keyword: str, around: frozenset[str] | None
    ) -> None:
        """A keyword whose subschemas apply to parts of the value.

        A part is closed only if no other schema of the same value may describe it, too.
        """
        value = place.schema[keyword]
        parts = None if around is None or around else _NOTHING
        if keyword in ("properties", "patternProperties"):
            translated[keyword] = {
                name: self._schema(place.inner(each), None if around is None or name in around else _NOTHING)
                for name, each in value.items()
            }
        elif keyword in ("additionalProperties", "items"):
            translated[keyword] = self._schema(place.inner(value), parts)
        elif keyword == "prefixItems":
            translated[keyword] = [self._schema(place.inner(each), parts) for each in value]

    def _names_of(self, place: Place) -> PropertyNames:
        """:func:`property_names`, found once per subschema; a mere reference is no subschema of its own."""
        if isinstance(place.schema, Mapping) and place.schema.keys() == {"$ref"}:
            place = place.target(place.schema["$ref"])
        key = id(place.schema)
        if key not in self._known_names:
            self._known_names[key] = property_names(place)
        return self._known_names[key]

    def _reference(self, target: Place, others: frozenset[str] | None) -> str:
        if others is not None and not isinstance(target.schema, Mapping):
            others = _NOTHING
        if len(self._names) > _MOST_DEFINITIONS:
            others = None
        key = (id(target.schema), others)
        if key not in self._names:
            self._names[key] = str(len(self._names))
            self._pending.append((self._names[key], target, others))
        return f"#/$defs/{self._names[key]}"


def _united(others: frozenset[str] | None, names: Iterable[PropertyNames]) -> frozenset[str] | None:
    """All names; None if they are open or too many to be listed again in every subschema."""
    names = list(names)
    if others is None or any(each.are_open for each in names):
        return None
    united = others.union(*(each.names for each in names))
    return united if len(united) <= _MOST_NAMES else None


def _beside(
    schema: Mapping[str, Any],
    applied: Iterable[tuple[str, Any, PropertyNames]],
    keyword: str,
    branch: Any,
    others: frozenset[str] | None,
) -> frozenset[str] | None:
    """The properties that schemas beside a branch name. Alternatives are not beside each other."""
    siblings = [
        names
        for origin, each, names in applied
        if origin != keyword or (keyword == "allOf" and each is not branch)
    ]
    return _united(others, [PropertyNames.listed(schema), *siblings])


def _weaken(translated: dict[str, Any], place: Place) -> None:
    """Add what follows from keywords that cannot be enforced themselves."""
    schema = place.schema
    if "contains" in schema:
        least = max(translated.get("minItems", 0), int(schema.get("minContains", 1)))
        translated |= {"minItems": least} if least else {}
    if schema.get("uniqueItems") is True and isinstance(items := schema.get("items"), Mapping):
        _list_sets(translated, place.inner(items))
    names = schema.get("propertyNames")
    if isinstance(names, Mapping) and not {"properties", "patternProperties"} & schema.keys():
        _name_properties(translated, place.inner(names))
    _restrict_unevaluated(translated, schema)


def _list_sets(translated: dict[str, Any], items: Place) -> None:
    """Allow as many items as there are different ones; if they are few, list the lists without repetition."""
    if "$ref" in items.schema:
        items = items.target(items.schema["$ref"])
    choices = _choices(items.schema)
    if choices is None or translated.keys() & {"prefixItems", "enum", "const"}:
        return
    least, most = translated.get("minItems", 0), min(translated.get("maxItems", len(choices)), len(choices))
    translated["maxItems"] = most
    is_small = len(choices) <= _MOST_SET_ITEMS and all(isinstance(each, str) for each in choices)
    if is_small and least <= most and translated.get("type") == "array":
        orders = (permutations(dict.fromkeys(choices), size) for size in range(least, most + 1))
        translated["enum"] = [list(each) for order in orders for each in order]


def _choices(schema: Any) -> list[Any] | None:
    """The values that a schema lists."""
    if not isinstance(schema, Mapping):
        return None
    choices: list[Any] | None = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return choices


def _restrict_unevaluated(translated: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """``unevaluatedProperties`` and ``unevaluatedItems``, where no other schema applies to the same value."""
    if schema.keys() & {*IN_PLACE, "if", "dependentSchemas", "$dynamicRef"}:
        return
    if schema.get("unevaluatedProperties") is False:
        translated.setdefault("additionalProperties", False)
    if schema.get("unevaluatedItems") is False and "contains" not in schema:
        translated.setdefault("items", False)


def _name_properties(translated: dict[str, Any], names: Place) -> None:
    """Restrict the names of properties, all of which have one schema."""
    value = translated.get("additionalProperties", True)
    if "$ref" in names.schema:
        names = names.target(names.schema["$ref"])
    if not isinstance(names.schema, Mapping):
        return
    choices = _choices(names.schema)
    if choices is not None and len(choices) <= _MOST_NAMES:
        translated["properties"] = {each: value for each in choices if isinstance(each, str)}
        translated["additionalProperties"] = False
    elif choices is None and isinstance(pattern := names.schema.get("pattern"), str):
        translated |= {
            "patternProperties": {without_lookaround(pattern): value},
            "additionalProperties": False,
        }


def _least_is_enforced(translated: Mapping[str, Any]) -> bool:
    """Whether llguidance counts all properties for ``minProperties``, not those alone that are not listed."""
    optional = translated.get("properties", {}).keys() - set(translated.get("required", ()))
    is_closed = translated.get("additionalProperties") is False and "patternProperties" not in translated
    is_one = translated.get("minProperties") == 1 and translated.get("maxProperties", 1) == 1
    return not optional or (is_closed and is_one)


def _close(translated: dict[str, Any], schema: Mapping[str, Any], around: frozenset[str]) -> None:
    """Forbid what neither this schema nor others of the same value list."""
    listed = PropertyNames.listed(schema)
    if "properties" in translated and "additionalProperties" not in translated and not listed.are_open:
        more = sorted((around | listed.names) - translated["properties"].keys())
        translated["properties"] = {**translated["properties"], **dict.fromkeys(more, True)}
        translated["additionalProperties"] = False


def _as_2020(place: Place) -> Mapping[str, Any]:
    """A subschema of an older draft in the keywords of 2020-12."""
    schema = dict(place.schema)
    if "$ref" in schema and place.specification.name in ("draft-04", "draft-06", "draft-07", "draft-03"):
        return {"$ref": schema["$ref"]}  # they ignore all keywords beside it
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema["additionalItems"]
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if isinstance(is_exclusive := schema.get(exclusive), bool):
            del schema[exclusive]
            if is_exclusive and bound in schema:
                schema[exclusive] = schema.pop(bound)
    return schema
