"""The common name of a model and its adapter: ``model[adapter]``."""


def with_adapter(name: str, adapter: str | None) -> str:
    """The name of a model with an adapter, or with none."""
    return name if adapter is None else f"{name}[{adapter}]"


def without_adapter(name: str) -> tuple[str, str | None]:
    """Split a common name into the model and its adapter, or None."""
    base, bracket, adapter = name.removesuffix("]").partition("[")
    return (base, adapter) if bracket and name.endswith("]") else (name, None)
