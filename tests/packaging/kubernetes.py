"""Checks deploy/kubernetes without a cluster: each object against the schemas of Kubernetes, and what the objects and
gateway.toml say of each other.

    kubernetes.py
"""

import pathlib
import sys
import tomllib

import kubernetes_validate
import yaml

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "deploy/kubernetes"
VERSIONS = ("1.30", kubernetes_validate.latest_version())


def read():
    """All objects that kustomization.yaml names, by kind and name, and the kustomization."""
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    objects = {}
    for name in kustomization["resources"]:
        for found in yaml.safe_load_all((FOLDER / name).read_text()):
            objects[found["kind"], found["metadata"]["name"]] = found
    return kustomization, objects


def seconds(duration):
    """Of a duration in gateway.toml."""
    number, unit = int(duration[:-1]), duration[-1]
    return number * {"s": 1, "m": 60}[unit]


def secret_files(value):
    """Every { file = ... } of the configuration."""
    if isinstance(value, dict):
        if set(value) == {"file"}:
            yield pathlib.PurePosixPath(value["file"])
        for inner in value.values():
            yield from secret_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from secret_files(inner)


def namespaces_of_services(gateway):
    """Those of all servers: NAME.NAMESPACE.svc.cluster.local:PORT."""
    for upstream in gateway["upstream"].values():
        for server in upstream["servers"]:
            _, namespace, rest = server.split(".", 2)
            assert rest.startswith("svc.cluster.local:"), server
            yield namespace


def admitted(policy, port):
    """The namespaces that may reach a port."""
    return {
        namespace
        for rule in policy["spec"]["ingress"]
        if {"port": port} in rule["ports"]
        for peer in rule["from"]
        for namespace in peer["namespaceSelector"]["matchLabels"].values()
    }


def main():
    """Fails at the first thing that is wrong."""
    kustomization, objects = read()
    for found in objects.values():
        for version in VERSIONS:
            kubernetes_validate.validate(found, version, strict=True)

    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kustomization["resources"]), files
    (generated,) = kustomization["configMapGenerator"]
    assert generated == {"name": "session-gateway", "files": ["gateway.toml"]}, generated

    gateway = tomllib.loads((FOLDER / "gateway.toml").read_text())
    deployment = objects["Deployment", "session-gateway"]["spec"]
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    # Everything is about these pods.
    assert deployment["selector"]["matchLabels"] == labels
    assert objects["PodDisruptionBudget", "session-gateway"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["NetworkPolicy", "session-gateway"]["spec"]["podSelector"]["matchLabels"] == labels
    for (kind, name), found in objects.items():
        if kind == "Service":
            assert found["spec"]["selector"] == labels, name
            assert all(port["targetPort"] in ports for port in found["spec"]["ports"]), name

    # Who may reach them: services fetch the public keys where Prometheus asks.
    policy = objects["NetworkPolicy", "session-gateway"]
    assert admitted(policy, "http") == {"ingress-nginx"}, policy
    assert admitted(policy, "health") == {"monitoring", *namespaces_of_services(gateway)}, policy
    assert objects["Service", "session-gateway-health"]["spec"]["ports"][0]["targetPort"] == "health"

    # Ports, files and times are those of gateway.toml.
    assert [listener["address"] for listener in gateway["listener"]] == [f"0.0.0.0:{ports['http']}"]
    assert gateway["health"]["address"] == f"0.0.0.0:{ports['health']}"
    assert deployment["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["health"])
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert container["args"][-1] == mounts["config"]["mountPath"] + "/gateway.toml"
    secrets = pathlib.PurePosixPath(mounts["secrets"]["mountPath"])
    assert all(path.parent == secrets for path in secret_files(gateway)), list(secret_files(gateway))
    assert not any("subPath" in mount for mount in mounts.values()), "a change would not arrive"
    assert gateway["watch"] is True
    grace = seconds(gateway["drain_delay"]) + seconds(gateway["shutdown_grace"])
    assert grace < pod["terminationGracePeriodSeconds"] <= grace + 15, grace

    # An update takes nobody away before another one is ready.
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    probe = container["readinessProbe"]
    noticed = (probe["periodSeconds"] + probe["timeoutSeconds"]) * probe["failureThreshold"]
    assert noticed < seconds(gateway["drain_delay"]), "it stops to accept before anybody knows"

    # What the namespace asks for ("restricted"), and a root that nobody writes to.
    assert objects["Namespace", kustomization["namespace"]]["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted"
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    confined = container["securityContext"]
    assert confined["allowPrivilegeEscalation"] is False
    assert confined["readOnlyRootFilesystem"] is True
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in container["resources"]["limits"]
    user = str(pod["securityContext"]["runAsUser"])
    dockerfile = (FOLDER.parents[1] / "Dockerfile").read_text()
    assert f"USER {user}:{user}\n" in dockerfile
    assert f"EXPOSE {ports['http']} {ports['health']}\n" in dockerfile

    print(len(objects), "objects are right", file=sys.stderr)


main()
