"""The files for containers and clusters parse, and their flags and arguments are ones that there are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from typer.testing import CliRunner

from cosd_core.cli.app import app
from cosd_core.frontend.settings import Settings
from cosd_core.serving.app import ENDPOINTS
from cosd_core.serving.options import ServerOptions
from cosd_core.serving.ray import read_arguments

FOLDER = Path(__file__).parents[1] / "examples/deployment"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]["cosd"]
KUBERNETES = {
    each["kind"]: each
    for each in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
}
POD = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def flags(command: list[str]) -> Iterator[tuple[str, str]]:
    return (word[2:].split("=") for word in command if word.startswith("--"))  # type: ignore[return-value]


@pytest.mark.parametrize("command", [COMPOSE["command"], CONTAINER["args"]], ids=["compose", "kubernetes"])
def test_the_flags_are_those_of_cosd_serve(command: list[str]) -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"], prog_name="cosd").output.split()
    given = dict(flags(command))
    assert command[0] == "serve"
    assert given
    assert all(f"--{name}" in shown for name in given)
    values: dict[str, Any] = {name.replace("-", "_"): yaml.safe_load(value) for name, value in given.items()}
    options = ServerOptions(**values, api_keys=(SecretStr("key"),))
    assert options.host_names() is None, "requests may call the server by any name"
    for seconds in (
        POD["terminationGracePeriodSeconds"],
        int(COMPOSE["stop_grace_period"].removesuffix("s")),
    ):
        assert seconds > options.shutdown_grace


def test_keys_are_needed_and_health_is_asked_where_the_server_listens() -> None:
    port = dict(flags(CONTAINER["args"]))["port"]
    assert "COSD_API_KEY" in COMPOSE["environment"]
    assert [each["name"] for each in CONTAINER["env"]] == ["COSD_API_KEY"]
    assert f":{port}/health" in COMPOSE["healthcheck"]["test"][-1]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"] == {"path": "/health", "port": int(port)}
    assert "/health" in ENDPOINTS
    assert KUBERNETES["Service"]["spec"]["ports"][0]["targetPort"] == int(port)


def test_models_are_kept_in_the_volume_where_the_image_puts_them() -> None:
    image = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    (mount,) = CONTAINER["volumeMounts"]
    assert f"HF_HOME={mount['mountPath']} " in image
    assert COMPOSE["volumes"] == [f"models:{mount['mountPath']}"]
    assert (
        POD["volumes"][0]["persistentVolumeClaim"]["claimName"]
        == (KUBERNETES["PersistentVolumeClaim"]["metadata"]["name"])
    )


def test_the_arguments_of_the_replicas_are_valid() -> None:
    file = yaml.safe_load((FOLDER / "ray-serve.yaml").read_text(encoding="utf-8"))
    (application,) = file["applications"]
    assert application["import_path"] == "cosd_core.serving.ray:app"
    settings, _, replicas = read_arguments(application["args"])
    assert Settings(**settings).assistants
    assert replicas.max_replicas > 1
