"""The options of the server itself; those of the models and texts are fields of :class:`CallSettings`."""

from typing import Annotated

from pydantic import Field, SecretStr

from cosd_core.options import Options

LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


class ServerOptions(Options):
    """The options of ``cosd serve`` beside those of the models.

    Raises:
        InvalidOptionError: A name is unknown, or a value of a wrong type or out of its range.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65535)  # 0: any free one
    name: str | None = Field(default=None, min_length=1)
    api_keys: tuple[Annotated[SecretStr, Field(min_length=1)], ...] = Field(default=(), repr=False)
    allowed_hosts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    max_body_bytes: int = Field(default=1 << 20, ge=1)
    max_tokens_limit: int | None = Field(default=None, ge=1)
    request_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    shutdown_grace: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    log_prompts: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach the port."""
        return self.host in LOCAL_NAMES or self.host.startswith("127.")

    def host_names(self) -> frozenset[str] | None:
        """The names in lower case by which requests may call the server; None: any.

        A local server without keys has its local names unless others are given: otherwise a page of another
        site, whose name leads to this machine, could use it.
        """
        if self.allowed_hosts:
            return frozenset(name.lower() for name in self.allowed_hosts)
        return LOCAL_NAMES | {self.host} if self.is_local and not self.api_keys else None
