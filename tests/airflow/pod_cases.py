"""Configurations as users of Airflow's KubernetesExecutor have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubernetes.client import models as k8s

BASE = """
apiVersion: v1
kind: Pod
metadata: {name: placeholder-name}
spec:
  restartPolicy: Never
  containers:
  - {name: base, image: "apache/airflow:3.3.2"}
"""

# Much of it is what the provider's documentation shows.
FULL = """
apiVersion: v1
kind: Pod
metadata:
  name: placeholder-name
  namespace: from-the-template
  creationTimestamp: null
  labels: {tier: airflow, component: worker}
  annotations: {example.com/safe-to-evict: "false"}
  finalizers: [example.com/held]
  ownerReferences:
  - {apiVersion: v1, kind: ConfigMap, name: owner, uid: 0f3b}
spec:
  restartPolicy: Never
  serviceAccountName: airflow-worker
  terminationGracePeriodSeconds: 600
  hostNetwork: true
  priorityClassName: tasks
  nodeSelector: {disk: ssd}
  imagePullSecrets: [{name: registry}]
  securityContext: {runAsUser: 50000, fsGroup: 50000, runAsNonRoot: true}
  tolerations: [{key: dedicated, operator: Equal, value: airflow, effect: NoSchedule}]
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 1
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector: {matchLabels: {tier: airflow}}
  topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}
  initContainers:
  - name: git-sync
    image: git-sync:v4
    env: [{name: GIT_SYNC_ONE_TIME, value: "true"}]
    volumeMounts: [{name: dags, mountPath: /git}]
  containers:
  - name: base
    image: "apache/airflow:3.3.2"
    imagePullPolicy: IfNotPresent
    command: [/entrypoint, --]
    env:
    - {name: AIRFLOW__CORE__EXECUTOR, value: LocalExecutor}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
    envFrom: [{configMapRef: {name: variables}}]
    ports: [{name: logs, containerPort: 8793}]
    resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 2Gi}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 5}
    volumeMounts:
    - {name: dags, mountPath: /opt/airflow/dags, readOnly: true, subPath: repo}
    - {name: logs, mountPath: /opt/airflow/logs}
  - name: log-shipper
    image: fluent-bit:3
    volumeMounts: [{name: logs, mountPath: /logs}]
  volumes:
  - {name: dags, emptyDir: {}}
  - {name: logs, persistentVolumeClaim: {claimName: airflow-logs}}
  - {name: config, configMap: {name: airflow-config, defaultMode: 420}}
"""

# The provider calls the first container `base`, whatever it was.
ANY_NAME = BASE.replace("name: base", "name: worker")
NUMBERS = BASE.replace(
    '{name: base, image: "apache/airflow:3.3.2"}',
    "{name: base, image: x, env: [{name: ONE, value: 1}, {name: TWO, value: true}], "
    "resources: {requests: {cpu: 1, memory: 1073741824}, limits: {cpu: 0.5}}}",
)
NO_CONTAINERS = "apiVersion: v1\nkind: Pod\nspec: {restartPolicy: Never, containers: []}\n"


@dataclass(frozen=True)
class Case:
    """One pod.

    Attributes:
        override: the `pod_override`; None for none.
        template: of the pod, as YAML.
        image: what is configured for all tasks; "" for the template's.
        task: what differs from a plain task.
    """

    override: k8s.V1Pod | None = None
    template: str = BASE
    image: str = ""
    task: dict[str, Any] = field(default_factory=dict)


def pod(*containers: k8s.V1Container, metadata: Any = None, **spec: Any) -> k8s.V1Pod:
    return k8s.V1Pod(metadata=metadata, spec=k8s.V1PodSpec(containers=list(containers), **spec))


def base(**fields: Any) -> k8s.V1Container:
    return k8s.V1Container(name="base", **fields)


def env(**variables: str) -> list[k8s.V1EnvVar]:
    return [k8s.V1EnvVar(name=name, value=value) for name, value in variables.items()]


CASES = {
    "nothing but a template": Case(),
    "a full template": Case(template=FULL),
    "a configured image": Case(template=FULL, image="configured:1"),
    "a first container of another name": Case(template=ANY_NAME, image="configured:1"),
    "numbers in a template": Case(template=NUMBERS),
    "a template without containers": Case(template=NO_CONTAINERS, image="configured:1"),
    "an image": Case(pod(base(image="other:1")), FULL),
    "an image beside a configured one": Case(pod(base(image="other:1")), FULL, "configured:1"),
    "resources": Case(
        pod(
            base(
                resources=k8s.V1ResourceRequirements(
                    requests={"cpu": "4", "memory": "8Gi"}, limits={"nvidia.com/gpu": "1"}
                )
            )
        ),
        FULL,
    ),
    "environment": Case(pod(base(env=env(NEW="1", AIRFLOW__CORE__EXECUTOR="x"))), FULL),
    "environment from a field": Case(
        pod(
            base(
                env=[
                    k8s.V1EnvVar(
                        name="POD_IP",
                        value_from=k8s.V1EnvVarSource(
                            field_ref=k8s.V1ObjectFieldSelector(field_path="status.podIP")
                        ),
                    )
                ],
                env_from=[
                    k8s.V1EnvFromSource(
                        secret_ref=k8s.V1SecretEnvSource(name="more", optional=True)
                    )
                ],
            )
        ),
        FULL,
    ),
    "a sidecar": Case(
        pod(
            base(volume_mounts=[k8s.V1VolumeMount(name="shared", mount_path="/shared")]),
            k8s.V1Container(
                name="sidecar",
                image="ubuntu",
                args=["echo retrieved > /shared/file"],
                command=["bash", "-cx"],
                volume_mounts=[k8s.V1VolumeMount(name="shared", mount_path="/shared")],
            ),
            volumes=[k8s.V1Volume(name="shared", empty_dir=k8s.V1EmptyDirVolumeSource())],
        ),
    ),
    "a sidecar over the template's": Case(
        pod(base(), k8s.V1Container(name="proxy", image="proxy:1", env=env(A="1"))), FULL
    ),
    "a third container": Case(
        pod(
            base(),
            k8s.V1Container(name="log-shipper"),
            k8s.V1Container(name="third", image="third:1", ports=[{"containerPort": 80}]),
        ),
        FULL,
    ),
    "an init container": Case(
        pod(base(), init_containers=[k8s.V1Container(name="first", image="busybox")])
    ),
    "init containers over the template's": Case(
        pod(
            base(),
            init_containers=[
                k8s.V1Container(name="second", image="busybox"),
                k8s.V1Container(name="git-sync", image="git-sync:v5", env=env(BRANCH="main")),
            ],
        ),
        FULL,
    ),
    "a native sidecar": Case(
        pod(
            base(),
            init_containers=[
                k8s.V1Container(name="proxy", image="proxy:1", restart_policy="Always")
            ],
        )
    ),
    "volumes": Case(
        pod(
            base(
                volume_mounts=[
                    k8s.V1VolumeMount(name="data", mount_path="/data", sub_path="x"),
                    k8s.V1VolumeMount(name="token", mount_path="/token", read_only=True),
                ]
            ),
            volumes=[
                k8s.V1Volume(
                    name="data", host_path=k8s.V1HostPathVolumeSource(path="/d", type="Directory")
                ),
                k8s.V1Volume(
                    name="token",
                    projected=k8s.V1ProjectedVolumeSource(
                        sources=[
                            k8s.V1VolumeProjection(
                                service_account_token=k8s.V1ServiceAccountTokenProjection(
                                    path="token", expiration_seconds=600, audience="vault"
                                )
                            )
                        ]
                    ),
                ),
            ],
        ),
        FULL,
    ),
    "a volume of the same name": Case(
        pod(base(), volumes=[k8s.V1Volume(name="logs", empty_dir=k8s.V1EmptyDirVolumeSource())]),
        FULL,
    ),
    "block devices": Case(
        pod(base(volume_devices=[k8s.V1VolumeDevice(name="raw", device_path="/dev/raw")])), FULL
    ),
    "node affinity": Case(
        pod(
            base(),
            affinity=k8s.V1Affinity(
                node_affinity=k8s.V1NodeAffinity(
                    required_during_scheduling_ignored_during_execution=k8s.V1NodeSelector(
                        node_selector_terms=[
                            k8s.V1NodeSelectorTerm(
                                match_expressions=[
                                    k8s.V1NodeSelectorRequirement(
                                        key="gpu", operator="In", values=["a100", "h100"]
                                    )
                                ]
                            )
                        ]
                    )
                )
            ),
        ),
        FULL,
    ),
    "an affinity that says nothing": Case(pod(base(), affinity=k8s.V1Affinity()), FULL),
    "tolerations": Case(
        pod(base(), tolerations=[k8s.V1Toleration(key="gpu", operator="Exists")]), FULL
    ),
    "tolerations as dicts": Case(
        pod(base(), tolerations=[{"key": "gpu", "operator": "Exists"}]), FULL
    ),
    "resources as a dict": Case(pod(base(resources={"requests": {"cpu": "2"}})), FULL),
    "node selectors": Case(pod(base(), node_selector={"zone": "a"}), FULL),
    "what cannot be switched off": Case(
        pod(
            base(env=[], volume_mounts=[]),
            host_network=False,
            node_selector={},
            tolerations=[],
            termination_grace_period_seconds=0,
        ),
        FULL,
    ),
    "a false that nobody contradicts": Case(
        pod(base(tty=False), host_network=False, share_process_namespace=False)
    ),
    "metadata alone": Case(
        k8s.V1Pod(
            metadata=k8s.V1ObjectMeta(
                labels={"team": "data", "tier": "mine"}, annotations={"note": "täglich ☀"}
            )
        ),
        FULL,
    ),
    "finalizers and owners": Case(
        pod(
            base(),
            metadata=k8s.V1ObjectMeta(
                finalizers=["example.com/mine"],
                owner_references=[
                    k8s.V1OwnerReference(api_version="v1", kind="Pod", name="p", uid="u-2")
                ],
            ),
        ),
        FULL,
    ),
    "a namespace": Case(pod(base(), metadata=k8s.V1ObjectMeta(namespace="team-a")), FULL),
    "a command": Case(pod(base(command=["/bin/dumb-init", "--"])), FULL),
    "a working directory and a hook": Case(
        pod(
            base(
                working_dir="/work",
                lifecycle=k8s.V1Lifecycle(
                    pre_stop=k8s.V1LifecycleHandler(_exec=k8s.V1ExecAction(command=["sync"]))
                ),
                startup_probe=k8s.V1Probe(
                    http_get=k8s.V1HTTPGetAction(path="/", port="http", scheme="HTTPS")
                ),
            )
        ),
        FULL,
    ),
    "security contexts": Case(
        pod(
            base(security_context=k8s.V1SecurityContext(run_as_user=0, privileged=True)),
            security_context=k8s.V1PodSecurityContext(
                run_as_user=0, sysctls=[k8s.V1Sysctl(name="net.core.somaxconn", value="1024")]
            ),
        ),
        FULL,
    ),
    "service account, scheduler and runtime": Case(
        pod(
            base(),
            service_account_name="special",
            scheduler_name="volcano",
            runtime_class_name="gvisor",
            automount_service_account_token=False,
            overhead={"cpu": "250m"},
            host_aliases=[k8s.V1HostAlias(ip="10.0.0.1", hostnames=["db"])],
            dns_config=k8s.V1PodDNSConfig(
                options=[k8s.V1PodDNSConfigOption(name="ndots", value="2")]
            ),
        ),
        FULL,
    ),
    "pull secrets": Case(
        pod(base(), image_pull_secrets=[k8s.V1LocalObjectReference(name="mine")]), FULL
    ),
    "an empty override": Case(k8s.V1Pod(), FULL),
    "an override without containers": Case(pod(restart_policy="OnFailure"), FULL),
    "a mapped task": Case(
        pod(base(image="mapped:1")), FULL, task={"task_id": "group.mapped", "map_index": 7}
    ),
    "the first of a mapped task": Case(task={"map_index": 0}),
    "a later try": Case(task={"try_number": 4}),
    "a logical date": Case(
        template=FULL, task={"date": datetime(2026, 11, 23, 6, 30, 0, 123456, tzinfo=UTC)}
    ),
    "long ids": Case(
        template=FULL,
        task={
            "dag_id": "a_dag." * 41,
            "task_id": "-".join(["group"] * 41),
            "run_id": "scheduled__2026-11-23T06:30:00+00:00_" * 6,
        },
    ),
    "unicode ids": Case(
        pod(base()),
        FULL,
        task={"dag_id": "größe_日次", "task_id": "Übersicht.задача", "run_id": "manuell__ñ ☀"},
    ),
    "a long command": Case(task={"args": ["python", "-c", "x" * 20_000, "", "ä\n\"'"]}),
}
