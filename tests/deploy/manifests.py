"""Checks Kubernetes manifests strictly, without a cluster.

    python3 manifests.py DIR…              one line for each problem; exit code 1 when there are any
    python3 manifests.py --value NAMESPACE/CONFIGMAP/KEY DIR…    prints that value

The schema is that of the official client (PyPI `kubernetes`), which is generated from the API's own
description: every field must exist there, have the type that it says, and be there where it is
required. On top of it: what this project promises of its manifests (pod security `restricted` and
some more), and that what one object names in another is there.
"""

import re
import sys
from pathlib import Path

import yaml
from kubernetes import client
from kubernetes.client import models

# What the reader makes; the manifests say so where they use it.
MADE_BY_THE_READER = {
    ("Secret", "jit-broker", "jit-broker-tls"),
    ("Secret", "jit-broker", "jit-broker-inventory"),
    ("Secret", "jit-broker", "jit-broker-keys"),
    ("Secret", "jit-broker", "jit-broker-store"),
    ("ConfigMap", "jit-broker", "database-ca"),
    ("ConfigMap", "jit-broker", "store-ca"),
    ("ConfigMap", "shop", "jit-broker-ca"),
    # Kubernetes makes it in every namespace.
    ("ConfigMap", "*", "kube-root-ca.crt"),
}
SCALARS = {"str": str, "int": int, "bool": bool, "float": (int, float), "datetime": str}
# The namespace of what must not stop when one node does.
NEVER_AWAY = "jit-broker"
# Typed as text, and commonly written as a number.
QUANTITY_MAPS = {"requests", "limits"}


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key may not stand twice."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def words(kind):
    """`NetworkPolicy` → `network_policy`, as the client's functions are called."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


def model_of(api_version, kind):
    """The client's class for an object, or None where the API has no such kind in that group."""
    group, _, version = api_version.rpartition("/")
    parts = group.removesuffix(".k8s.io").split(".") if group else ["core"]
    api = getattr(client, "".join(part.capitalize() for part in parts) + version.capitalize() + "Api", None)
    made_by = [f"create_{words(kind)}", f"create_namespaced_{words(kind)}"]
    if api is None or not any(hasattr(api, function) for function in made_by):
        return None
    return getattr(models, version.capitalize() + kind, None)


def check(value, kind, path):
    """Yields what is wrong with a value that should be of a type of the API."""
    if value is None:
        yield f"{path}: empty"
        return
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{path}: not a list"
            return
        for index, item in enumerate(value):
            yield from check(item, inner[1], f"{path}[{index}]")
    elif inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            yield f"{path}: not a map"
            return
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{path}.{key}: the key is not text"
            quantity = path.rsplit(".", 1)[-1] in QUANTITY_MAPS and type(item) is int
            if not quantity:
                yield from check(item, inner[1], f"{path}.{key}")
    elif kind in SCALARS:
        if not isinstance(value, SCALARS[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield f"{path}: {value!r} is not of type {kind}"
    elif kind != "object":
        yield from check_object(value, getattr(models, kind), path)


def check_object(value, model, path):
    if not isinstance(value, dict):
        yield f"{path}: not an object"
        return
    attributes = {name: attribute for attribute, name in model.attribute_map.items()}
    known = {}
    for name, item in value.items():
        if name not in attributes:
            yield f"{path}.{name}: {model.__name__} has no such field"
            continue
        known[attributes[name]] = item
        yield from check(item, model.openapi_types[attributes[name]], f"{path}.{name}")
    try:
        model(**known)  # knows which fields are required
    except ValueError as error:
        yield f"{path}: {error}"


def pod_of(document):
    if document.get("kind") == "Pod":
        return document.get("spec")
    return ((document.get("spec") or {}).get("template") or {}).get("spec")


def policy(document):
    """What this project promises of each pod: `restricted` and more."""
    pod = pod_of(document)
    if not pod:
        return
    of_pod = pod.get("securityContext") or {}
    if of_pod.get("runAsNonRoot") is not True:
        yield "the pod may run as root (runAsNonRoot)"
    if not of_pod.get("runAsUser"):
        yield "the pod's user is not a number above 0 (runAsUser)"
    if (of_pod.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "a token for the API is mounted unasked (automountServiceAccountToken)"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is set"
    for volume in pod.get("volumes") or []:
        if "hostPath" in volume:
            yield f"volume {volume['name']}: hostPath"
        if "emptyDir" in volume:
            memory = volume["emptyDir"] or {}
            if memory.get("medium") != "Memory" or not memory.get("sizeLimit"):
                yield f"volume {volume['name']}: emptyDir without medium: Memory and a sizeLimit"
    for container in (pod.get("initContainers") or []) + pod["containers"]:
        yield from policy_of_container(container)


def policy_of_container(container):
    name = f"container {container['name']}"
    security = container.get("securityContext") or {}
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: privileges may be escalated"
    if security.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: the root file system can be written"
    if (security.get("capabilities") or {}).get("drop") != ["ALL"]:
        yield f"{name}: capabilities are kept"
    if security.get("privileged") or (security.get("capabilities") or {}).get("add"):
        yield f"{name}: has privileges"
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        yield f"{name}: runs as root"
    resources = container.get("resources") or {}
    if "memory" not in (resources.get("limits") or {}) or "cpu" not in (resources.get("requests") or {}):
        yield f"{name}: no memory limit, or no request of CPU"
    tag = container["image"].rsplit("/", 1)[-1].partition(":")[2]
    if not tag or tag == "latest":
        yield f"{name}: the image has no version"
    for variable in container.get("env") or []:
        if re.search("PASSWORD|TOKEN$|SECRET", variable["name"]) and "value" in variable:
            yield f"{name}: a secret stands in {variable['name']}"


def references(document, there):
    """What an object names and is not there."""
    namespace = document["metadata"].get("namespace", "")
    pod = pod_of(document)
    if document["kind"] in ("StatefulSet", "Deployment"):
        wanted = document["spec"]["selector"].get("matchLabels") or {}
        labels = document["spec"]["template"]["metadata"].get("labels") or {}
        if not wanted.items() <= labels.items():
            yield "the selector does not fit the pod's labels"
    if document["kind"] == "ClusterRoleBinding":
        for subject in document.get("subjects") or []:
            if (subject["kind"], subject.get("namespace", ""), subject["name"]) not in there:
                yield f"{subject['kind']} {subject['name']} is not there"
    if not pod:
        return

    def named(kind, name):
        places = {(kind, namespace, name), (kind, "*", name)}
        if not places & (there | MADE_BY_THE_READER):
            yield f"{kind} {namespace}/{name} is not there"

    yield from named("ServiceAccount", pod.get("serviceAccountName", "default"))
    volumes = {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates") or []}
    for volume in pod.get("volumes") or []:
        volumes.add(volume["name"])
        for source in [volume] + (volume.get("projected") or {}).get("sources", []):
            if "configMap" in source:
                yield from named("ConfigMap", source["configMap"]["name"])
            if "secret" in source:
                secret = source["secret"]
                yield from named("Secret", secret.get("secretName") or secret.get("name"))
    for container in (pod.get("initContainers") or []) + pod["containers"]:
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                yield f"container {container['name']}: no volume {mount['name']}"
        for variable in container.get("env") or []:
            if secret := (variable.get("valueFrom") or {}).get("secretKeyRef"):
                yield from named("Secret", secret["name"])
        ports = {port["name"] for port in container.get("ports") or []}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = ((container.get(probe) or {}).get("httpGet") or {}).get("port")
            if isinstance(port, str) and port not in ports:
                yield f"container {container['name']}: {probe} asks the unknown port {port}"


def labels_of_pods(document):
    return ((document.get("spec") or {}).get("template") or {}).get("metadata", {}).get("labels") or {}


def fits(selector, labels):
    """Whether a selector names something, and all of it is among the labels."""
    wanted = (selector or {}).get("matchLabels") or {}
    return bool(wanted) and wanted.items() <= labels.items()


def selects(document, all_documents):
    """What names pods by their labels, or their ports by names, and finds none."""
    namespace = document["metadata"].get("namespace", "")
    here = [other for other in all_documents if other["metadata"].get("namespace", "") == namespace and pod_of(other)]
    kind, spec = document["kind"], document.get("spec") or {}
    if kind == "Service":
        selector, named = {"matchLabels": spec.get("selector")}, [port.get("targetPort") for port in spec["ports"]]
    elif kind == "NetworkPolicy":
        selector = spec["podSelector"]
        named = [port.get("port") for rule in spec.get("ingress") or [] for port in rule.get("ports") or []]
    elif kind == "PodDisruptionBudget":
        selector, named = spec.get("selector"), []
    else:
        return
    selected = [other for other in here if fits(selector, labels_of_pods(other))]
    if not selected:
        yield "its selector fits no pod"
        return
    ports = {
        port["name"]
        for other in selected
        for container in pod_of(other)["containers"]
        for port in container.get("ports") or []
    }
    for name in named:
        if isinstance(name, str) and name not in ports:
            yield f"the pods have no port {name}"


def replicas(document, all_documents):
    """What several pods need that are to serve while a node is drained or lost, and at every change of version."""
    namespace, spec = document["metadata"].get("namespace"), document.get("spec") or {}
    count = spec.get("replicas", 1)
    if document["kind"] != "Deployment" or namespace != NEVER_AWAY or count < 2:
        return
    labels, pod = labels_of_pods(document), pod_of(document)
    update = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    if update.get("maxUnavailable") != 0 or update.get("maxSurge") not in range(1, count + 1):
        yield "an update takes a pod away before the next one is ready (rollingUpdate)"
    budgets = [
        other["spec"]
        for other in all_documents
        if other["kind"] == "PodDisruptionBudget"
        and other["metadata"].get("namespace") == namespace
        and fits(other["spec"].get("selector"), labels)
    ]
    if len(budgets) != 1:
        yield "not one PodDisruptionBudget, but " + (str(len(budgets)) if budgets else "none")
    for budget in budgets:
        left = budget.get("minAvailable", count - budget.get("maxUnavailable", 0))
        if left not in range(1, count):
            yield f"the PodDisruptionBudget keeps {left} of {count} pods: nodes cannot be drained, or no pod is kept"
    spread = [
        constraint
        for constraint in pod.get("topologySpreadConstraints") or []
        if constraint["topologyKey"] == "kubernetes.io/hostname"
        and constraint["whenUnsatisfiable"] == "DoNotSchedule"
        and fits(constraint.get("labelSelector"), labels)
    ]
    if not spread:
        yield "all pods may be on one node (topologySpreadConstraints)"
    for volume in pod.get("volumes") or []:
        if "persistentVolumeClaim" in volume:
            yield f"volume {volume['name']}: the pods share it"
    for container in pod["containers"]:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe not in container:
                yield f"container {container['name']}: no {probe}"


def documents(folders):
    """All documents of the files, with the file's name."""
    for file in sorted(file for folder in folders for file in Path(folder).rglob("*.yaml")):
        with file.open(encoding="utf-8") as stream:
            for document in yaml.load_all(stream, Loader=UniqueKeys):
                yield file.name, document


def problems(folders):
    try:
        found = list(documents(folders))
    except yaml.YAMLError as error:
        yield f"not YAML: {error}"
        return
    if not found:
        yield "no manifests"
    sound = []
    for file, document in found:
        if not isinstance(document, dict) or not {"apiVersion", "kind", "metadata"} <= document.keys():
            yield f"{file}: a document without apiVersion, kind or metadata"
            continue
        kind, name = document["kind"], document["metadata"].get("name")
        model = model_of(document["apiVersion"], kind)
        if model is None:
            yield f"{file}: {document['apiVersion']} has no {kind}"
            continue
        wrong = list(check_object(document, model, f"{file}: {kind} {name}"))
        yield from wrong
        if not wrong:
            sound.append((file, document))
    there = {
        (document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"])
        for _, document in sound
    }
    every = [document for _, document in sound]
    for file, document in sound:
        whole = [*policy(document), *references(document, there), *selects(document, every), *replicas(document, every)]
        for problem in whole:
            yield f"{file}: {document['kind']} {document['metadata']['name']}: {problem}"


def main(arguments):
    if arguments[:1] == ["--value"]:
        namespace, name, key = arguments[1].split("/", 2)
        for _, document in documents(arguments[2:]):
            metadata = document["metadata"]
            if (document["kind"], metadata.get("namespace"), metadata["name"]) == ("ConfigMap", namespace, name):
                print(document["data"][key], end="")
                return 0
        return 1
    found = list(problems(arguments))
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
