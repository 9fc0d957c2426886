"""Files of deploy/ that are not run here: manifests by their schemas, the image by what its commands name."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OPERATOR = "operator/deployment/helm/dask-kubernetes-operator/crds"


def documents() -> dict[str, dict[str, Any]]:
    files = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yaml"))]
    return {each["kind"]: each for text in files for each in yaml.safe_load_all(text)}


def strict(schema: Any) -> Any:
    """The same schema, refusing what it does not name, as the API server does with `--validate=strict`."""
    if isinstance(schema, dict):
        found = {key: strict(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
            found["additionalProperties"] = False
        if schema.get("x-kubernetes-int-or-string"):
            return {"type": ["integer", "string"]}
        return found
    return [strict(each) for each in schema] if isinstance(schema, list) else schema


def test_the_job_is_one_by_the_schema_of_the_operator() -> None:
    spec = importlib.util.find_spec("dask_kubernetes")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("dask-kubernetes is not installed")
    file = Path(spec.submodule_search_locations[0]) / OPERATOR / "daskjob.yaml"
    (version,) = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]["versions"]
    job = documents()["DaskJob"]
    assert job["apiVersion"] == f"kubernetes.dask.org/{version['name']}"
    schema = strict(version["schema"]["openAPIV3Schema"])
    jsonschema.validate({"spec": job["spec"]}, schema)
    job["spec"]["cluster"]["spec"]["worker"]["spec"]["containers"][0]["ressources"] = {}
    with pytest.raises(jsonschema.ValidationError, match="ressources"):
        jsonschema.validate({"spec": job["spec"]}, schema)


def containers(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["cluster"]["spec"]
    pods = [job["spec"]["job"], cluster["worker"], cluster["scheduler"]]
    return {each["name"]: each for pod in pods for each in pod["spec"]["containers"]}


def test_manifests_agree_with_each_other() -> None:
    found = documents()
    job, claim, policy = (found[kind] for kind in ("DaskJob", "PersistentVolumeClaim", "NetworkPolicy"))
    name = job["metadata"]["name"]
    inside = containers(job)
    assert set(inside) == {"job", "worker", "scheduler"}  # the names by which the operator knows them
    assert {each["image"] for each in inside.values()} == {"REGISTRY/lrgls:VERSION"}
    assert f"tcp://{name}-scheduler:8786" in inside["job"]["args"]
    assert policy["spec"]["podSelector"]["matchLabels"] == {"dask.org/cluster-name": name}
    service = job["spec"]["cluster"]["spec"]["scheduler"]["service"]
    assert service["selector"] == {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    ports = {each["name"]: each["containerPort"] for each in inside["scheduler"]["ports"]}
    assert {each["targetPort"] for each in service["ports"]} == set(ports)
    claims = re.findall(r"claimName: (\w+)", (FOLDER / "fit.yaml").read_text(encoding="utf-8"))
    assert claims == [claim["metadata"]["name"]] * 2


def test_a_worker_ends_before_its_pod_is_ended() -> None:
    worker = containers(documents()["DaskJob"])["worker"]
    limit = worker["args"][worker["args"].index("--memory-limit") + 1]
    of_pod = worker["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("GiB")) * 1.1 < int(of_pod.removesuffix("Gi"))
    assert worker["args"][worker["args"].index("--nthreads") + 1] == worker["resources"]["requests"]["cpu"]


def test_the_fit_of_the_job_is_a_command_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option of it: the store is not there."""
    from lrgls_dask.cli import main

    args = containers(documents()["DaskJob"])["job"]["args"]
    assert args[0] == "lrgls"
    assert main([*args[1:-2]]) == 1
    assert "/data/returns.zarr" in capsys.readouterr().err


def test_what_the_image_copies_is_there() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert [each for each in copied if not (ROOT / each).exists()] == []
    (user,) = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert user != "root"
