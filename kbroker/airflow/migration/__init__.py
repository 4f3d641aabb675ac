"""Coming from the KubernetesExecutor: what becomes of its options. Needs no Airflow."""
